"""The images of a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from cliper.errors import InputError
from cliper.runner.items import ImageItem
from cliper.runner.run_dir import MANIFEST, PARTS, RUN
from cliper.runner.storage import Storage, is_remote, join, quote_uri, storage_reason

__all__ = ["FolderSource"]


class FolderSource:
    """A folder and those below it, links to folders included.

    Names that begin with a dot are left out, and folders that hold the results of a run. Only the names of one folder
    are in memory at a time.

    Args:
        uri: of the folder.
        matches: which names are images.
        skip: address of a folder that is left out.
    """

    kind, is_sequential = "folder", False

    def __init__(self, uri: str, matches: Callable[[str], bool], skip: str | None = None) -> None:
        self.uri = uri
        self._matches = matches
        self._storage = Storage(uri)
        self._skip = None
        if skip is not None and is_remote(skip) == (self._storage.local is None):
            self._skip = os.path.realpath(skip) if self._storage.local is not None else skip.rstrip("/")

    def items(self) -> Iterator[ImageItem]:
        """Folder by folder, in the order of names; a folder that cannot be listed is an item with an error."""
        for number, (name, error) in enumerate(self._names("", ()), start=1):
            yield ImageItem(number, name, join(self._storage.uri, name), error=error)

    def count(self) -> int | None:
        """By listing the whole folder, without keeping names."""
        return self._count("", ())

    def _count(self, folder: str, parents: tuple[str, ...]) -> int:
        real = self._real_path(folder)
        if real == self._skip or real in parents:
            return 0
        try:
            _, folders, count = self._list(folder, keep=False)
        except _UnreadableError:
            return 1
        return count + sum(self._count(f"{folder}/{name}" if folder else name, (*parents, real)) for name in folders)

    def _names(self, folder: str, parents: tuple[str, ...]) -> Iterator[tuple[str, str | None]]:
        real = self._real_path(folder)
        if real == self._skip or real in parents:  # a link to a folder above would never end
            return
        try:
            names, folders, _ = self._list(folder, keep=True)
        except _UnreadableError as error:
            yield folder, str(error)
            return
        names.extend(folders)
        names.sort(reverse=True)
        while names:
            name = names.pop()
            path = f"{folder}/{name}" if folder else name
            if name in folders:
                yield from self._names(path, (*parents, real))
            else:
                yield path, None

    def _uri_of(self, folder: str) -> str:
        return join(self._storage.uri, folder) if folder else self._storage.uri

    def _real_path(self, folder: str) -> str:
        uri = self._uri_of(folder)
        return uri if self._storage.local is None else os.path.realpath(uri)

    def _list(self, folder: str, *, keep: bool) -> tuple[list[str], set[str], int]:
        """Names of images (if they are kept), names of folders, number of images; nothing for a folder of results."""
        images: list[str] = []
        folders: set[str] = set()
        count = 0
        run_files = set()
        try:
            for entry in self._storage.entries(folder):
                if entry.name in (RUN, MANIFEST, PARTS):
                    run_files.add(entry.name)
                if entry.name.startswith("."):
                    continue
                if entry.is_folder:
                    folders.add(entry.name)
                elif self._matches(f"{folder}/{entry.name}" if folder else entry.name):
                    count += 1
                    if keep:
                        images.append(entry.name)
        except Exception as error:  # object stores have exceptions of their own
            uri = self._uri_of(folder)
            text = f"expected a folder that can be read, got {quote_uri(uri)} ({storage_reason(error, uri)})"
            if not folder:
                raise InputError(f"{text}; check its permissions") from None
            raise _UnreadableError(text) from None
        if folder and RUN in run_files and len(run_files) > 1:
            return [], set(), 0
        return images, folders, count


class _UnreadableError(Exception):
    """A folder below the source's cannot be listed."""
