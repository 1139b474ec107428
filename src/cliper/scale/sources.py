"""Where the pictures of a run come from: folders and lists; tars and videos are in modules of their own.

A source is listed lazily and anew each time, always in the same order, so that a picture's number is the same in each
run. Only the names of one folder are held at a time.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from cliper.errors import CliperError, InputError, quote_path, short_reason
from cliper.scale.folder import MANIFEST, PARTS, RUN
from cliper.scale.globs import matcher
from cliper.scale.items import Item, is_picture_name, safe_name
from cliper.scale.places import Place, folder_of, is_remote, join, open_file, plain_address

__all__ = ["FolderSource", "ListSource", "Source", "find_source"]

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
    address = plain_address(address)
    lower = address.lower()
    place = Place(address)
    is_video = lower.endswith(_VIDEOS)
    if every is not None and not is_video:
        raise InputError(f"--every: it is for videos, got {quote_path(address)}; leave it out")
    try:
        is_folder, is_file = place.is_folder(), place.is_file()
    except Exception as error:  # each store has exceptions of its own
        raise InputError(
            f"expected a folder, list, tar or video at {quote_path(address)}, could not look there "
            f"({short_reason(error)}); check the address, and the rights to read there"
        ) from None
    if is_folder:
        return FolderSource(address, is_meant, skip)
    if not is_file:
        raise InputError(
            f"expected a folder, list, tar or video at {quote_path(address)}, got nothing there; check the path"
        )
    if place.local is not None and not place.local.is_file():
        raise InputError(f"expected a folder, list, tar or video, got a pipe or device: {quote_path(address)}")
    if is_video:
        if glob:
            raise InputError("--glob: it is for folders, lists and tars, got a video; leave it out")
        from cliper.scale.videos import VideoSource

        return VideoSource(address, 1 if every is None else every)
    if lower.endswith(_TARS):
        from cliper.scale.tars import TarSource

        return TarSource(address, is_meant)
    if lower.endswith(_LISTS):
        return ListSource(address, is_meant if glob else None)
    hint = "for one picture use `cliper segment`" if is_picture_name(address) else "check the path"
    raise InputError(
        f"expected a folder, a list ({', '.join(_LISTS)}), a tar or a video, got {quote_path(address)}; {hint}"
    )


class FolderSource:
    """A folder and those below it, links to folders too.

    Left out are names that begin with a dot, and folders below that hold the results of a run.

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
        """By listing all of it, without its names."""
        return self._count("", ())

    def _count(self, folder: str, above: tuple[str, ...]) -> int:
        real = self._real(folder)
        if real == self._skip or real in above:
            return 0
        try:
            _, folders, count = self._look(folder, keep=False)
        except _UnreadableError:
            return 1
        return count + sum(self._count(f"{folder}/{name}" if folder else name, (*above, real)) for name in folders)

    def _names(self, folder: str, above: tuple[str, ...]) -> Iterator[tuple[str, str | None]]:
        real = self._real(folder)
        if real == self._skip or real in above:  # a link that leads back up would never end
            return
        try:
            names, folders, _ = self._look(folder, keep=True)
        except _UnreadableError as error:
            yield folder, str(error)
            return
        names.extend(folders)
        names.sort(reverse=True)
        while names:
            name = names.pop()
            path = f"{folder}/{name}" if folder else name
            if name in folders:
                yield from self._names(path, (*above, real))
            else:
                yield path, None

    def _where(self, folder: str) -> str:
        return join(self._place.address, folder) if folder else self._place.address

    def _real(self, folder: str) -> str:
        where = self._where(folder)
        return where if self._place.local is None else os.path.realpath(where)

    def _look(self, folder: str, *, keep: bool) -> tuple[list[str], set[str], int]:
        """Pictures, if their names are to be kept, folders, and how many pictures; of a folder of results nothing."""
        pictures: list[str] = []
        folders: set[str] = set()
        count = 0
        own = set()
        try:
            for entry in self._place.entries(folder):
                if entry.name in (RUN, MANIFEST, PARTS):
                    own.add(entry.name)
                if entry.name.startswith("."):
                    continue
                if entry.folder:
                    folders.add(entry.name)
                elif self._is_meant(f"{folder}/{entry.name}" if folder else entry.name):
                    count += 1
                    if keep:
                        pictures.append(entry.name)
        except Exception as error:  # object stores have exceptions of their own
            text = f"expected a folder that can be read, got {quote_path(self._where(folder))} ({short_reason(error)})"
            if not folder:
                raise InputError(f"{text}; check its permissions") from None
            raise _UnreadableError(text) from None
        if folder and RUN in own and len(own) > 1:
            return [], set(), 0
        return pictures, folders, count


class _UnreadableError(Exception):
    """A folder below the one that is meant cannot be listed."""


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
        self._folder = folder_of(address)

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
                    path = plain_address(line.rstrip("\r\n"))
                    if path.strip() and safe_name(path) and (self._is_meant is None or self._is_meant(safe_name(path))):
                        yield path
        except CliperError:
            raise
        except Exception as error:  # object stores have exceptions of their own
            raise InputError(
                f"expected a list of paths, could not read {quote_path(self.address)} ({short_reason(error)}); "
                "check the address"
            ) from None
