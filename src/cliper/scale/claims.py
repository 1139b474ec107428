"""Which picture a file's name belongs to: no picture's results take the place of another's, or of a file of the run."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence

from cliper.formats import Format, ImageInfo
from cliper.scale.manifest import Record
from cliper.scale.names import NameIndex, checksum

__all__ = ["Claims", "is_refusal"]

_OF_A_PICTURE = "its results would have the names of another picture's: "
_OF_THE_RUN = "its result would have the name of a file of the run: "

_NOBODY = 0


def is_refusal(record: Record) -> bool:
    """Whether a picture failed for no more than its name: the next run may find that free."""
    return (record.error or "").startswith((_OF_A_PICTURE, _OF_THE_RUN))


class Claims:
    """Who has which names; may be used by several threads at once.

    A picture's files are called after its stem, so a number for each stem is enough: of ten formats too, one.

    Args:
        formats: of the files.
        reserved: names that no picture's file or folder may have; those of the formats' own files are added.
    """

    def __init__(self, formats: Sequence[Format], reserved: Sequence[str] = ()) -> None:
        self._suffixes = [format.suffix for format in formats]
        patterns = [*map(re.escape, reserved)]
        for pattern in (pattern for format in formats for pattern in format.merged_files):
            patterns.append("[^/]*".join(map(re.escape, pattern.split("*"))))
        self._reserved = re.compile("|".join(f"(?:{pattern})" for pattern in patterns) if patterns else "(?!)")
        # "a.coco" in LabelMe's format (.json) and "a" in COCO's (.coco.json) have one name: what lies between their
        # stems, and the shorter end.
        self._between = [
            (long.removesuffix(short), short)
            for long in self._suffixes
            for short in self._suffixes
            if long != short and long.endswith(short)
        ]
        self._owners = NameIndex()  # by stem the checksum of a picture's name
        self._lock = threading.Lock()

    def learn(self, record: Record) -> None:
        """What a manifest says, line by line: results that are there keep their names."""
        with self._lock:
            if record.is_done:
                self._owners[_stem(record.input)] = checksum(record.input)
            elif not record.is_damaged:
                self._release(record.input)

    def has(self, name: str) -> bool:
        """Whether a picture has its names."""
        with self._lock:
            return self._owners.get(_stem(name)) == checksum(name)

    def take(self, name: str, gone: Callable[[int], bool] | None = None) -> str | None:
        """Give a picture its names.

        Args:
            name: of the picture.
            gone: tells of a checksum whether that picture's claim no longer counts.

        Returns:
            The reason why it cannot have them, or None.
        """
        with self._lock:
            refusal = self._refusal(name, gone)
            if refusal is None:
                self._owners[_stem(name)] = checksum(name)
            return refusal

    def refusal(self, name: str, gone: Callable[[int], bool] | None = None) -> str | None:
        """What :meth:`take` would answer."""
        with self._lock:
            return self._refusal(name, gone)

    def release(self, name: str) -> None:
        """A picture that failed has no files, and needs no names."""
        with self._lock:
            self._release(name)

    def _release(self, name: str) -> None:
        if self._owners.get(_stem(name)) == checksum(name):
            self._owners[_stem(name)] = _NOBODY

    def _refusal(self, name: str, gone: Callable[[int], bool] | None) -> str | None:
        stem, own = _stem(name), checksum(name)
        for path in self._paths(stem):
            if self._reserved.fullmatch(path):
                return f"{_OF_THE_RUN}{path}; rename it, or leave it out with --glob"
        for other, suffix in self._rivals(stem):
            owner = self._owners.get(other)
            if owner not in (None, _NOBODY, own) and not (gone is not None and gone(owner)):
                return f"{_OF_A_PICTURE}{stem}{suffix}; rename one, or leave one out with --glob"
        return None

    def _paths(self, stem: str) -> Iterator[str]:
        """A picture's files and the folders that they are in: a folder would be in a file's way too."""
        for suffix in self._suffixes:
            yield stem + suffix
        folder = stem.rpartition("/")[0]
        while folder:
            yield folder
            folder = folder.rpartition("/")[0]

    def _rivals(self, stem: str) -> Iterator[tuple[str, str]]:
        """Stems of which a file would have the name of one of this stem's, and that one's suffix."""
        yield stem, self._suffixes[0]
        for between, suffix in self._between:
            if stem.endswith(between):
                yield stem.removesuffix(between), suffix
            yield stem + between, between + suffix


def _stem(name: str) -> str:
    return ImageInfo(name, 0, 0).stem
