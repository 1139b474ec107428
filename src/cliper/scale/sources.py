"""Where the pictures of a run come from: folders, lists and archives; a video is in :mod:`cliper.scale.videos`.

A source is listed lazily and anew each time, always in the same order, so that a picture's number is the same in each
run. Only the names of one folder are held at a time.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol

from cliper.decoding import one_line, shown_path
from cliper.errors import InputError
from cliper.scale.globs import matcher
from cliper.scale.items import Item, is_picture_name, safe_name
from cliper.scale.places import Place, is_remote, join, open_file

__all__ = ["FolderSource", "ListSource", "Source", "TarSource", "find_source"]

_LISTS = (".txt", ".lst", ".list")
_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".ogv", ".3gp")


class Source(Protocol):
    """Where pictures come from."""

    address: str
    kind: str  # "folder", "list", "tar" or "video"
    held: bool  # whether its items bring their bytes, and so cannot be read on other machines

    def items(self) -> Iterator[Item]:
        """All pictures, in the same order each time.

        Raises:
            InputError: the source ends in the middle, or cannot be read any more.
        """

    def count(self) -> int | None:
        """How many pictures there are; None if only reading all of it would tell. May take a while."""


def find_source(address: str, *, glob: Sequence[str] = (), every: int | None = None, skip: str | None = None) -> Source:
    """The source at an address, by what lies there.

    Args:
        address: a folder, a list (``.txt``), a tar or a video; path or fsspec address.
        glob: patterns of names, for folders, lists and tars; see :func:`cliper.scale.globs.matcher`.
        every: of a video, take every n-th frame; None is 1.
        skip: a folder that is not looked into: the run's own results.

    Raises:
        InputError: there is nothing, or nothing that can be used; or an option that does not fit it.
        MissingExtraError: a video, and PyAV is not installed.

    Example:
        >>> find_source("no/such/folder")
        Traceback (most recent call last):
        cliper.errors.InputError: expected a folder, list, tar or video at 'no/such/folder', got nothing there; ...
    """
    is_meant = matcher(glob)
    lower = address.lower()
    place = Place(address)
    is_video = lower.endswith(_VIDEOS)
    if every is not None and not is_video:
        raise InputError(f"--every: it is for videos, got {shown_path(address)}; leave it out")
    if place.is_folder():
        return FolderSource(address, is_meant, skip)
    if not place.is_file():
        raise InputError(
            f"expected a folder, list, tar or video at {shown_path(address)}, got nothing there; check the path"
        )
    if place.local is not None and not place.local.is_file():
        raise InputError(f"expected a folder, list, tar or video, got a pipe or device: {shown_path(address)}")
    if is_video:
        if glob:
            raise InputError("--glob: it is for folders, lists and tars, got a video; leave it out")
        from cliper.scale.videos import VideoSource

        return VideoSource(address, 1 if every is None else every)
    if lower.endswith(_TARS):
        return TarSource(address, is_meant)
    if lower.endswith(_LISTS):
        return ListSource(address, is_meant if glob else None)
    hint = "for one picture use `cliper segment`" if is_picture_name(address) else "check the path"
    raise InputError(
        f"expected a folder, a list ({', '.join(_LISTS)}), a tar or a video, got {shown_path(address)}; {hint}"
    )


class FolderSource:
    """A folder and those below it, links to folders too; names that begin with a dot are left out.

    Args:
        address: of the folder.
        is_meant: which names are pictures.
        skip: address of a folder that is not looked into.
    """

    kind, held = "folder", False

    def __init__(self, address: str, is_meant: Callable[[str], bool], skip: str | None = None) -> None:
        self.address = address
        self._is_meant = is_meant
        self._place = Place(address)
        self._skip = os.path.realpath(skip) if skip is not None and self._place.local is not None else None
        if skip is not None and self._skip is None and is_remote(skip):
            self._skip = skip.rstrip("/")

    def items(self) -> Iterator[Item]:
        """Folder by folder, in the order of names; what cannot be listed is an item with an error."""
        for number, (name, error) in enumerate(self._names("", ()), start=1):
            yield Item(number, name, join(self._place.address, name), error=error)

    def count(self) -> int | None:
        """By listing all of it."""
        return sum(1 for _ in self._names("", ()))

    def _names(self, folder: str, above: tuple[str, ...]) -> Iterator[tuple[str, str | None]]:
        where = join(self._place.address, folder) if folder else self._place.address
        real = where if self._place.local is None else os.path.realpath(where)
        if real == self._skip or real in above:  # a link that leads back up would never end
            return
        try:
            entries = sorted((entry.name, entry.folder) for entry in self._place.entries(folder))
        except Exception as error:  # object stores have exceptions of their own
            if not folder:
                raise InputError(
                    f"expected a folder that can be read, got {shown_path(where)} ({one_line(error)}); "
                    "check its permissions"
                ) from None
            yield folder, f"expected a folder that can be read, got {shown_path(where)} ({one_line(error)})"
            return
        for name, is_folder in entries:
            if name.startswith("."):
                continue
            path = f"{folder}/{name}" if folder else name
            if is_folder:
                yield from self._names(path, (*above, real))
            elif self._is_meant(path):
                yield path, None


class ListSource:
    """A text file with one path or address a line; relative ones start at the list's folder.

    Args:
        address: of the list.
        is_meant: which of its lines are meant; None for all.
    """

    kind, held = "list", False

    def __init__(self, address: str, is_meant: Callable[[str], bool] | None = None) -> None:
        self.address = address
        self._is_meant = is_meant
        self._folder = address.rpartition("/")[0] if is_remote(address) else str(Path(address).parent)

    def items(self) -> Iterator[Item]:
        """Line by line; blank ones are passed over."""
        for number, line in enumerate(self._lines(), start=1):
            if is_remote(line):
                # without the protocol, which is no folder: s3://bucket/a.jpg is bucket/a.jpg
                yield Item(number, safe_name(line.partition("://")[2]), line)
            else:
                yield Item(number, safe_name(line), join(self._folder, line))

    def count(self) -> int | None:
        """By reading it."""
        return sum(1 for _ in self._lines())

    def _lines(self) -> Iterator[str]:
        try:
            with open_file(self.address) as data:
                # Names of files need not be text; what is not comes back as the same bytes.
                for line in io.TextIOWrapper(data, encoding="utf-8-sig", errors="surrogateescape", newline="\n"):
                    path = line.rstrip("\r\n")
                    if path.strip() and safe_name(path) and (self._is_meant is None or self._is_meant(safe_name(path))):
                        yield path
        except OSError as error:
            raise InputError(
                f"expected a list of paths, could not read {shown_path(self.address)} ({one_line(error)})"
            ) from None


class TarSource:
    """The pictures of a tar, read where they lie: nothing is unpacked to disk.

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
            begin = stream.read(512)
        # A compressed tar can only be read from its begin: its items carry their bytes.
        self.held = begin.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0"))
        if not self.held and begin[257:262] != b"ustar" and begin.strip(b"\0"):
            raise self._damaged("it is no tar")

    def items(self) -> Iterator[Item]:
        """Member by member, in the tar's order.

        Raises:
            InputError: the tar is cut off or damaged; what comes before that has been given.
        """
        number = 0
        try:
            with self._open() as stream, tarfile.open(fileobj=stream, mode="r|*" if self.held else "r:") as tar:
                while (member := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # else all are kept; ten million are many
                    name = safe_name(member.name)
                    if member.isdir() or not name or not self._is_meant(name):
                        continue
                    number += 1
                    yield self._item(number, name, member, tar)
                if not self.held:
                    self._check_end(stream, tar.offset)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise self._damaged(f"{one_line(error)}, after picture {number}") from None

    def count(self) -> int | None:
        """By its headers; None if it is compressed."""
        return None if self.held else sum(1 for _ in self.items())

    def _item(self, number: int, name: str, member: tarfile.TarInfo, tar: tarfile.TarFile) -> Item:
        if not member.isreg() or member.issparse():
            what = f"a link to {member.linkname!r}" if member.islnk() or member.issym() else "something else"
            error = f"expected a picture, got {what} in the tar: {shown_path(member.name)}; make the tar with files"
            return Item(number, name, self.address, error=error)
        if self.held:
            content = tar.extractfile(member)
            return Item(number, name, self.address, held=b"" if content is None else content.read())
        return Item(number, name, self.address, start=member.offset_data, size=member.size)

    def _open(self) -> IO[bytes]:
        try:
            return open_file(self.address)
        except OSError as error:
            raise InputError(f"expected a tar, could not read {shown_path(self.address)} ({one_line(error)})") from None

    def _check_end(self, stream: IO[bytes], offset: int) -> None:
        """tarfile takes damage in the middle for the end."""
        stream.seek(offset)
        block = stream.read(512)
        if block.strip(b"\0") or 0 < len(block) < 512:
            raise tarfile.ReadError("the next header is damaged")

    def _damaged(self, reason: str) -> InputError:
        return InputError(
            f"expected a whole tar, got a damaged one or something else: {shown_path(self.address)} ({reason}); "
            "fetch or make it again"
        )
