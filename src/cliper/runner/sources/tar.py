"""The images of a tar, read in place: nothing is unpacked to disk."""

from __future__ import annotations

import bz2
import functools
import gzip
import lzma
import tarfile
from collections.abc import Callable, Iterator
from typing import IO, Any

from cliper.errors import ImageError, InputError, quote_path
from cliper.runner.items import ImageItem, Source, check_file_size, safe_name
from cliper.runner.storage import hide_credentials, open_file, quote_uri, storage_errors

__all__ = ["TarSource"]

_OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}


class TarSource(Source):
    """The images of a tar, or of several that were concatenated (``cat a.tar b.tar``).

    Names that begin with a dot are left out, as in folders: some systems add one for each file. ``matches`` tells which
    names are images. Raises InputError if it cannot be read.
    """

    kind = "tar"

    def __init__(self, uri: str, matches: Callable[[str], bool]) -> None:
        super().__init__(uri)
        self._matches = matches
        with self._open() as stream:
            begin = stream.read(8)
        self._opener = next((opener for magic, opener in _OPENERS.items() if begin.startswith(magic)), None)
        self.is_sequential = self._opener is not None

    def items(self) -> Iterator[ImageItem]:
        """Member by member, in the tar's order. Raises InputError where the tar is cut off or damaged."""
        number = 0
        try:
            for member, tar in self._members():
                name = safe_name(member.name)
                hidden = name.startswith(".") or "/." in name
                if not member.isdir() and name and not hidden and self._matches(name):
                    number += 1
                    yield self._item(number, name, member, tar)
        except Exception:
            found = f"a damaged one or something else after image {number}: {quote_uri(self.uri)}"
            with storage_errors(InputError, f"expected a whole tar, got {found}", self.uri, "fetch or make it again"):
                raise

    def _members(self) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
        """All members, each with the tar, which is at its data."""
        with self._open() as stream:
            data: Any = stream if self._opener is None else self._opener(stream)
            mode: Any = "r:" if self._opener is None else "r|"
            # Zeros are the end of a tar, but another may follow.
            tar = tarfile.open(fileobj=data, mode=mode, tarinfo=_Member, ignore_zeros=True)  # noqa: SIM115
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it would keep all; there may be millions
                yield member, tar

    def _item(self, number: int, name: str, member: tarfile.TarInfo, tar: tarfile.TarFile) -> ImageItem:
        if member.islnk() and not self.is_sequential and safe_name(member.linkname) in self._files:
            start, size = self._files[safe_name(member.linkname)]
            return ImageItem(number, name, self.uri, start=start, size=size)
        if not member.isreg() or member.issparse():
            kind = f"a link to {member.linkname!r}" if member.islnk() or member.issym() else "something else"
            error = f"expected an image, got {kind} in the tar: {quote_path(member.name)}; make the tar with files"
            return ImageItem(number, name, self.uri, error=error)
        if not self.is_sequential:
            return ImageItem(number, name, self.uri, start=member.offset_data, size=member.size)
        shown = quote_path(hide_credentials(f"{self.uri}:{name}"))
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
        message = f"expected a tar, could not read {quote_uri(self.uri)}"
        with storage_errors(InputError, message, self.uri, "check the address"):
            return open_file(self.uri)


class _Member(tarfile.TarInfo):
    """A member; what is neither a header nor zeros is an error before the end of the tar, and may follow it."""

    @classmethod
    def fromtarfile(cls, tar: Any) -> Any:
        """The next member of a tar."""
        try:
            member = super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            tar.is_at_end = True
            raise
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError):  # type: ignore[attr-defined]
            if getattr(tar, "is_at_end", False):
                raise tarfile.EmptyHeaderError from None  # type: ignore[attr-defined]
            raise tarfile.ReadError("the next header is damaged") from None
        tar.is_at_end = False
        return member
