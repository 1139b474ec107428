"""The images that a text file lists."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator

from cliper.errors import InputError
from cliper.runner.items import ImageItem, Source, safe_name
from cliper.runner.storage import (
    hide_credentials,
    is_remote,
    join,
    normalize_uri,
    open_file,
    parent_uri,
    quote_uri,
    storage_errors,
)

__all__ = ["ListSource"]


class ListSource(Source):
    """A text file with one path or address in each line; relative paths start at the list's folder.

    If all lines are absolute, names are relative to their common folder. ``matches`` selects lines by name; None takes
    all. Raises InputError if the list cannot be read.
    """

    kind = "list"

    def __init__(self, uri: str, matches: Callable[[str], bool] | None = None) -> None:
        super().__init__(uri)
        self._matches = matches
        self._prefix = self._common_folder()

    def items(self) -> Iterator[ImageItem]:
        """Line by line; blank lines are left out."""
        folder, number = parent_uri(self.uri), 0
        for line in self._lines():
            name = _name_of(line).removeprefix(self._prefix)
            if self._matches is None or self._matches(name):
                number += 1
                yield ImageItem(number, name, line if is_remote(line) else join(folder, line))

    def _common_folder(self) -> str:
        """The names' common folder, with a slash at its end; empty if a line is relative, or there is none."""
        folders = set()
        for line in self._lines():
            if not is_remote(line) and not os.path.isabs(line):  # noqa: PTH117
                return ""
            folders.add(_name_of(line).rpartition("/")[0])
        common = os.path.commonpath(folders) if folders else ""
        return f"{common}/" if common else ""

    def _lines(self) -> Iterator[str]:
        message = f"expected a list of paths, could not read {quote_uri(self.uri)}"
        with storage_errors(InputError, message, self.uri, "check the address"), open_file(self.uri) as data:
            # Names of files need not be text; other bytes come back as they are.
            for line in io.TextIOWrapper(data, encoding="utf-8-sig", errors="surrogateescape", newline="\n"):
                path = normalize_uri(line.rstrip("\r\n"))
                if path.strip() and _name_of(path):
                    yield path


def _name_of(line: str) -> str:
    # Without the protocol, which is no folder: s3://bucket/a.jpg is bucket/a.jpg.
    return safe_name(hide_credentials(line).partition("://")[2] if is_remote(line) else line)
