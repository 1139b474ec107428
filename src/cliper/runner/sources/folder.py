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
        """By listing the whole folder."""
        return sum(1 for _ in self.items())

    def _names(self, folder: str, parents: tuple[str, ...]) -> Iterator[tuple[str, str | None]]:
        real = self._real_path(folder)
        if real == self._skip or real in parents:  # a link to a folder above would never end
            return
        try:
            names, folders = self._list(folder)
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

    def _list(self, folder: str) -> tuple[list[str], set[str]]:
        """Names of images, and of folders; of a folder of results nothing."""
        images: list[str] = []
        folders: set[str] = set()
        run_files = set()
        try:
            for name, is_folder in self._storage.entries(folder):
                if name in (RUN, MANIFEST, PARTS):
                    run_files.add(name)
                if is_folder and not name.startswith("."):
                    folders.add(name)
                elif not name.startswith(".") and self._matches(f"{folder}/{name}" if folder else name):
                    images.append(name)
        except Exception as error:  # object stores have exceptions of their own
            uri = self._uri_of(folder)
            text = f"expected a folder that can be read, got {quote_uri(uri)} ({storage_reason(error, uri)})"
            if not folder:
                raise InputError(f"{text}; check its permissions") from None
            raise _UnreadableError(text) from None
        if folder and RUN in run_files and len(run_files) > 1:
            return [], set()
        return images, folders


class _UnreadableError(Exception):
    """A folder below the source's cannot be listed."""
