"""The images of a tar, read in place: nothing is unpacked to disk."""

from __future__ import annotations

import bz2
import functools
import gzip
import lzma
import tarfile
from collections.abc import Callable, Iterator
from typing import IO, Any

from cliper.errors import CliperError, ImageError, InputError, quote_path
from cliper.runner.items import ImageItem, check_file_size, safe_name
from cliper.runner.storage import hide_credentials, open_file, quote_uri, storage_reason

__all__ = ["TarSource"]

_BLOCK = 512

_OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}


class TarSource:
    """The images of a tar, or of several that were concatenated (``cat a.tar b.tar``).

    Names that begin with a dot are left out, as in folders: some systems add one for each file. ``matches`` tells which
    names are images. Raises InputError if it is no tar.
    """

    kind = "tar"

    def __init__(self, uri: str, matches: Callable[[str], bool]) -> None:
        self.uri = uri
        self._matches = matches
        with self._open() as stream:
            block = stream.read(_BLOCK)
        self._opener = next((opener for magic, opener in _OPENERS.items() if block.startswith(magic)), None)
        self.is_sequential = self._opener is not None
        if not self.is_sequential and block.strip(b"\0") and not _is_header(block):
            raise self._damaged("it is no tar")

    def items(self) -> Iterator[ImageItem]:
        """Member by member, in the tar's order. Raises InputError where the tar is cut off or damaged."""
        number = 0
        try:
            for member, tar in self._members():
                name = safe_name(member.name)
                hidden = name.startswith(".") or "/." in name
                if member.isdir() or not name or hidden or not self._matches(name):
                    continue
                number += 1
                yield self._item(number, name, member, tar)
        except CliperError:
            raise
        except Exception as error:  # object stores and decompressors have exceptions of their own
            raise self._damaged(f"{storage_reason(error, self.uri)}, after image {number}") from None

    def count(self) -> int | None:
        """By its headers; None if it is compressed."""
        return None if self.is_sequential else sum(1 for _ in self.items())

    def _members(self) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
        """All members, each with the archive that it is in."""
        with self._open() as stream:
            data: Any = stream if self._opener is None else _ForwardReader(self._opener(stream))
            while True:
                tar = tarfile.TarFile(fileobj=data, mode="r")
                while (member := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # it would keep all; there may be millions
                    yield member, tar
                if not _find_next(data, tar.offset):
                    return

    def _item(self, number: int, name: str, member: tarfile.TarInfo, tar: tarfile.TarFile) -> ImageItem:
        shown = quote_path(hide_credentials(f"{self.uri}:{name}"))
        if member.islnk() and not self.is_sequential and safe_name(member.linkname) in self._files:
            start, size = self._files[safe_name(member.linkname)]
            return ImageItem(number, name, self.uri, start=start, size=size)
        if not member.isreg() or member.issparse():
            kind = f"a link to {member.linkname!r}" if member.islnk() or member.issym() else "something else"
            error = f"expected an image, got {kind} in the tar: {quote_path(member.name)}; make the tar with files"
            return ImageItem(number, name, self.uri, error=error)
        if not self.is_sequential:
            return ImageItem(number, name, self.uri, start=member.offset_data, size=member.size)
        try:
            check_file_size(member.size, shown)
            content = tar.extractfile(member)
            return ImageItem(number, name, self.uri, data=b"" if content is None else content.read())
        except ImageError as error:
            return ImageItem(number, name, self.uri, error=str(error))
        except MemoryError:
            return ImageItem(number, name, self.uri, error=f"out of memory while reading {shown}")

    @functools.cached_property
    def _files(self) -> dict[str, tuple[int, int]]:
        """First byte and size of each file, for hard links; the tar is read once more for the first of them."""
        files = (member for member, _ in self._members() if member.isreg() and not member.issparse())
        return {safe_name(member.name): (member.offset_data, member.size) for member in files}

    def _open(self) -> IO[bytes]:
        try:
            return open_file(self.uri)
        except CliperError:
            raise
        except Exception as error:
            raise InputError(
                f"expected a tar, could not read {quote_uri(self.uri)} ({storage_reason(error, self.uri)}); "
                "check the address"
            ) from None

    def _damaged(self, reason: str) -> InputError:
        return InputError(
            f"expected a whole tar, got a damaged one or something else: {quote_uri(self.uri)} ({reason}); "
            "fetch or make it again"
        )


class _ForwardReader:
    """A stream that can only be read once, for tarfile: it seeks forward, or back by a block."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._place = 0
        self._last = b""  # the end of the last read, of which so many bytes are to be read again
        self._back = 0

    def tell(self) -> int:
        return self._place

    def seek(self, place: int) -> int:
        if place < self._place:
            back = self._back + self._place - place
            if back > len(self._last):
                raise tarfile.StreamError("a compressed tar can only be read from its beginning")
            self._place, self._back = place, back
        while self._place < place and self.read(min(place - self._place, 2**20)):
            pass
        return self._place

    def read(self, size: int) -> bytes:
        if self._back:
            given = self._last[len(self._last) - self._back :][:size]
            self._back -= len(given)
            self._place += len(given)
            return given if len(given) == size else given + self.read(size - len(given))
        data = self._stream.read(size)
        self._last = data[-_BLOCK:]
        self._place += len(data)
        return data


def _find_next(stream: Any, offset: int) -> bool:
    """Whether another archive follows the end of one; the stream is then at its beginning.

    Raises:
        ReadError: it was not the end: for tarfile, a damaged header is one.
    """
    stream.seek(offset)
    block = stream.read(_BLOCK)
    if block.strip(b"\0") or 0 < len(block) < _BLOCK:
        raise tarfile.ReadError("the next header is damaged")
    while block and not block.strip(b"\0"):
        offset, block = offset + len(block), stream.read(_BLOCK)
    if not _is_header(block):  # anything may follow the end of a tar
        return False
    stream.seek(offset)
    return True


def _is_header(block: bytes) -> bool:
    """By its checksum; old ones have no magic bytes."""
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True
