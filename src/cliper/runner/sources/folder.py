"""The images of a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from cliper.errors import InputError
from cliper.runner.items import ImageItem, Source
from cliper.runner.run_dir import MANIFEST, RUN
from cliper.runner.storage import Storage, is_remote, join, quote_uri, storage_errors

__all__ = ["FolderSource"]


class FolderSource(Source):
    """A folder and those below it, links to folders included.

    Names that begin with a dot are left out, folders that hold the results of a run, and the folder ``skip``.
    ``matches`` tells which names are images. Only the names of one folder are in memory at a time.
    """

    kind = "folder"

    def __init__(self, uri: str, matches: Callable[[str], bool], skip: str | None = None) -> None:
        super().__init__(uri)
        self._matches = matches
        self._storage = Storage(uri)
        self._skip = None
        if skip is not None and is_remote(skip) == is_remote(uri):
            self._skip = skip.rstrip("/") if is_remote(skip) else os.path.realpath(skip)

    def items(self) -> Iterator[ImageItem]:
        """Folder by folder, in the order of names; a folder that cannot be listed is an item with an error."""
        for number, (name, error) in enumerate(self._names("", ()), start=1):
            yield ImageItem(number, name, join(self._storage.uri, name), error=error)

    def _names(self, folder: str, parents: tuple[str, ...]) -> Iterator[tuple[str, str | None]]:
        uri = join(self._storage.uri, folder)
        real = uri if is_remote(uri) else os.path.realpath(uri)
        if real == self._skip or real in parents:  # a link to a folder above would never end
            return
        names: list[str] = []
        folders: set[str] = set()
        run_files = set()
        message = f"expected a folder that can be read, got {quote_uri(uri)}"
        try:
            with storage_errors(InputError, message, uri, "check its permissions"):
                for name, is_folder in self._storage.entries(folder):
                    if name in (RUN, MANIFEST):
                        run_files.add(name)
                    if is_folder and not name.startswith("."):
                        folders.add(name)
                    elif not name.startswith(".") and self._matches(f"{folder}/{name}" if folder else name):
                        names.append(name)
        except InputError as error:
            if not folder:
                raise
            yield folder, str(error)
            return
        if folder and len(run_files) == 2:  # results of a run
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
