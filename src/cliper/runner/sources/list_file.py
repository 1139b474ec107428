"""The images that a text file lists."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator

from cliper.errors import CliperError, InputError
from cliper.runner.items import ImageItem, safe_name
from cliper.runner.storage import (
    hide_credentials,
    is_remote,
    join,
    normalize_uri,
    open_file,
    parent_uri,
    quote_uri,
    storage_reason,
)

__all__ = ["ListSource"]


class ListSource:
    """A text file with one path or address in each line; relative paths start at the list's folder.

    If all lines are absolute, names are relative to their common folder. ``matches`` selects lines by name; None takes
    all. Raises InputError if the list cannot be read.
    """

    kind, is_sequential = "list", False

    def __init__(self, uri: str, matches: Callable[[str], bool] | None = None) -> None:
        self.uri = uri
        self._matches = matches
        self._folder = parent_uri(uri)
        self._prefix = self._common_folder()

    def items(self) -> Iterator[ImageItem]:
        """Line by line; blank lines are left out."""
        for number, (name, line) in enumerate(self._named_lines(), start=1):
            yield ImageItem(number, name, line if is_remote(line) else join(self._folder, line))

    def count(self) -> int | None:
        """By reading the list."""
        return sum(1 for _ in self._named_lines())

    def _named_lines(self) -> Iterator[tuple[str, str]]:
        for line in self._lines():
            name = _name_of(line).removeprefix(self._prefix)
            if self._matches is None or self._matches(name):
                yield name, line

    def _common_folder(self) -> str:
        """The names' common folder, with a slash at its end; empty if a line is relative, or there is none."""
        common: str | None = None
        for line in self._lines():
            if not is_remote(line) and not os.path.isabs(line):  # noqa: PTH117
                return ""
            folder = _name_of(line).rpartition("/")[0]
            common = folder if common is None else os.path.commonpath([common, folder])
            if not common:
                return ""
        return f"{common}/" if common else ""

    def _lines(self) -> Iterator[str]:
        try:
            with open_file(self.uri) as data:
                # Names of files need not be text; other bytes come back as they are.
                for line in io.TextIOWrapper(data, encoding="utf-8-sig", errors="surrogateescape", newline="\n"):
                    path = normalize_uri(line.rstrip("\r\n"))
                    if path.strip() and _name_of(path):
                        yield path
        except CliperError:
            raise
        except Exception as error:  # object stores have exceptions of their own
            raise InputError(
                f"expected a list of paths, could not read {quote_uri(self.uri)} ({storage_reason(error, self.uri)}); "
                "check the address"
            ) from None


def _name_of(line: str) -> str:
    # Without the protocol, which is no folder: s3://bucket/a.jpg is bucket/a.jpg.
    return safe_name(hide_credentials(line).partition("://")[2] if is_remote(line) else line)
