"""The pictures of a tar, read where they lie: nothing is unpacked to disk."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Callable, Iterator
from typing import IO, Any

from cliper.errors import CliperError, InputError, quote_path, short_reason
from cliper.images import decoding_memory_errors
from cliper.scale.items import Item, safe_name
from cliper.scale.names import NameIndex
from cliper.scale.places import open_file

__all__ = ["TarSource"]

_BLOCK = 512

_OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}


class TarSource:
    """The pictures of a tar, or of several that were written one behind the other (``cat a.tar b.tar``).

    Names that begin with a dot are left out, as in folders: some systems put one beside each picture.

    Args:
        address: of the tar.
        is_meant: which names are pictures; other members are passed over.

    Raises:
        InputError: it is no tar.
    """

    kind = "tar"

    def __init__(self, address: str, is_meant: Callable[[str], bool]) -> None:
        self.address = address
        self._is_meant = is_meant
        with self._open() as stream:
            begin = stream.read(_BLOCK)
        self._opener = next((opener for mark, opener in _OPENERS.items() if begin.startswith(mark)), None)
        # A compressed tar can only be read from its begin: its items carry their bytes.
        self.held = self._opener is not None
        if not self.held and begin.strip(b"\0") and not _is_header(begin):
            raise self._damaged("it is no tar")

    def items(self) -> Iterator[Item]:
        """Member by member, in the tar's order.

        Raises:
            InputError: the tar is cut off or damaged; what comes before that has been given.
        """
        number = 0
        linked = _Linked(self)
        try:
            for member, tar in self.members():
                name = safe_name(member.name)
                hidden = name.startswith(".") or "/." in name
                if member.isdir() or not name or hidden or not self._is_meant(name):
                    continue
                number += 1
                yield self._item(number, name, member, tar, linked)
        except CliperError:
            raise
        except Exception as error:  # object stores and decompressors have exceptions of their own
            raise self._damaged(f"{short_reason(error)}, after picture {number}") from None

    def count(self) -> int | None:
        """By its headers; None if it is compressed."""
        return None if self.held else sum(1 for _ in self.items())

    def members(self) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
        """All members, each with the archive that it is in."""
        with self._open() as stream:
            data: Any = stream if self._opener is None else _Forward(self._opener(stream))
            while True:
                tar = tarfile.TarFile(fileobj=data, mode="r")
                while (member := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # else all are kept; ten million are many
                    yield member, tar
                if not _find_next(data, tar.offset):
                    return

    def _item(self, number: int, name: str, member: tarfile.TarInfo, tar: tarfile.TarFile, linked: _Linked) -> Item:
        if member.isreg() and not member.issparse():
            if not self.held:
                return Item(number, name, self.address, start=member.offset_data, size=member.size)
            content = tar.extractfile(member)
            with decoding_memory_errors(quote_path(f"{self.address}:{name}")):
                return Item(number, name, self.address, held=b"" if content is None else content.read())
        if member.islnk() and not self.held:
            place = linked.find(member.linkname)
            if place is not None:
                return Item(number, name, self.address, start=place[0], size=place[1])
        what = f"a link to {member.linkname!r}" if member.islnk() or member.issym() else "something else"
        hint = "unpack it" if member.islnk() and self.held else "make the tar with files"
        error = f"expected a picture, got {what} in the tar: {quote_path(member.name)}; {hint}"
        return Item(number, name, self.address, error=error)

    def _open(self) -> IO[bytes]:
        try:
            return open_file(self.address)
        except CliperError:
            raise
        except Exception as error:
            raise InputError(
                f"expected a tar, could not read {quote_path(self.address)} ({short_reason(error)}); check the address"
            ) from None

    def _damaged(self, reason: str) -> InputError:
        return InputError(
            f"expected a whole tar, got a damaged one or something else: {quote_path(self.address)} ({reason}); "
            "fetch or make it again"
        )


class _Linked:
    """Where the content of hard links lies; the tar is gone through once more for the first of them.

    Args:
        source: an uncompressed tar.
    """

    def __init__(self, source: TarSource) -> None:
        self._source = source
        self._starts: NameIndex | None = None
        self._sizes = NameIndex()

    def find(self, name: str) -> tuple[int, int] | None:
        """First byte and number of bytes of the file of that name, if there is one."""
        if self._starts is None:
            self._starts = NameIndex()
            for member, _ in self._source.members():
                if member.isreg() and not member.issparse():
                    self._starts[safe_name(member.name)] = member.offset_data
                    self._sizes[safe_name(member.name)] = member.size
        start, size = self._starts.get(safe_name(name)), self._sizes.get(safe_name(name))
        return None if start is None or size is None else (start, size)


class _Forward:
    """A stream that can be read once, as tarfile wants it: it seeks forward, or back by a block.

    Args:
        stream: decompressed bytes.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._place = 0
        self._last = b""  # the end of what was read last, and how much of it was given back
        self._back = 0

    def tell(self) -> int:
        return self._place

    def seek(self, place: int) -> int:
        if place < self._place:
            back = self._back + self._place - place
            if back > len(self._last):
                raise tarfile.StreamError("a compressed tar can only be read from its begin")
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
    """Whether there is another archive behind the end of one; the stream is then at its begin.

    Raises:
        ReadError: that was not the end: tarfile takes damage in the middle for it.
    """
    stream.seek(offset)
    block = stream.read(_BLOCK)
    if block.strip(b"\0") or 0 < len(block) < _BLOCK:
        raise tarfile.ReadError("the next header is damaged")
    while block and not block.strip(b"\0"):
        offset, block = offset + len(block), stream.read(_BLOCK)
    if not _is_header(block):  # tars may have anything behind their end
        return False
    stream.seek(offset)
    return True


def _is_header(block: bytes) -> bool:
    """By its checksum; old ones have no name of their kind."""
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True
