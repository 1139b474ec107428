"""Which names of files an image must not have: those of the run's own files, and those of other formats."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from cliper.formats import Format
from cliper.runner.run_dir import MANIFEST, PARTS, RUN

__all__ = ["OutputNames"]

_RESERVED = (RUN, MANIFEST, PARTS, "overlay.mp4")


class OutputNames:
    """Checks the names of images' files, which are the image's stem and the suffix of a format."""

    def __init__(self, formats: Sequence[Format]) -> None:
        self._suffixes = [format.suffix for format in formats]
        patterns = [*_RESERVED, *(pattern for format in formats for pattern in format.merged_files)]
        self._reserved = re.compile("|".join("[^/]*".join(map(re.escape, p.split("*"))) for p in patterns))
        # With COCO (.coco.json) and LabelMe (.json), "a.coco" in LabelMe and "a" in COCO would have one name.
        self._ambiguous = {
            long.removesuffix(short)
            for long in self._suffixes
            for short in self._suffixes
            if long != short and long.endswith(short)
        }

    def problem(self, stem: str) -> str | None:
        """Why the files of an image of that stem cannot be written, or None."""
        for path in self._paths(stem):
            if self._reserved.fullmatch(path):
                return f"its result would have the name of a file of the run: {path}; rename it, or use --glob"
        for ending in self._ambiguous:
            if stem.endswith(ending):
                return f"its result could have the name of another image's: {stem} ends in {ending}; rename it"
        return None

    def _paths(self, stem: str) -> Iterator[str]:
        """An image's files and their folders: a folder would take the place of a file, too."""
        for suffix in self._suffixes:
            yield stem + suffix
        folder = stem.rpartition("/")[0]
        while folder:
            yield folder
            folder = folder.rpartition("/")[0]
