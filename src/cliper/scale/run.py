"""A run that is going on: what is left to do, what has become of it, and what is made of all pictures at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cliper.formats import read_label_png
from cliper.formats.registry import Part, Picture
from cliper.scale.folder import MANIFEST, RUN
from cliper.scale.items import Item
from cliper.scale.job import Job, output_names
from cliper.scale.manifest import Manifest, Record, read_manifest
from cliper.scale.names import NameIndex
from cliper.scale.places import Place
from cliper.scale.sources import Source

__all__ = ["Run", "Tally"]

OVERLAY_VIDEO = "overlay.mp4"

# Files about the whole run that a picture's own file could have the name of.
_TAKEN = {RUN, MANIFEST, "coco.json", "panoptic.json"}

Seen = Callable[[Record, bool], None]


@dataclass
class Tally:
    """How many pictures there were.

    Args:
        done: in this run.
        failed: in this run or, where they are not tried again, an earlier one.
        kept: done by an earlier run.
    """

    done: int = 0
    failed: int = 0
    kept: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.done + self.failed + self.kept


class Run:
    """A run that is going on.

    Args:
        source: its pictures.
        job: what is done with them.
        place: the folder of the pictures' files.
        manifest: what has become of them.
        seen: called with each record, and whether it is new; from any thread, one call at a time.
        retry_failed: whether pictures that failed in an earlier run are tried again.
    """

    def __init__(
        self,
        source: Source,
        job: Job,
        place: Place,
        manifest: Manifest,
        seen: Seen,
        *,
        retry_failed: bool = False,
    ) -> None:
        self.source, self.job, self.place = source, job, place
        self.tally = Tally()
        self._lock = threading.Lock()
        self._manifest, self._seen, self._retry_failed = manifest, seen, retry_failed

    def left(self) -> Iterator[Item]:
        """The pictures that have to be done, while the source is listed.

        Raises:
            InputError: the source ends in the middle.
            OutputError: the manifest cannot be written.
        """
        formats = self.job.found_formats()
        names, stems = NameIndex(), NameIndex()
        for item in self.source.items():
            stem = Picture(item.name, 0, 0).stem
            if names.get(item.name) is not None:
                error = f"there is another picture of that name: {item.name}; its results are that one's"
                item = replace(item, name=f"{item.name}#{item.number}", error=error)
            elif stems.get(stem) is not None:
                error = (
                    f"its results would have the names of another picture's: {stem}{formats[0].suffix}; rename one, "
                    "or leave one out with --glob"
                )
                item = replace(item, error=error)
            elif taken := _TAKEN.intersection(output_names(item.name, formats)):
                item = replace(item, error=f"its result would have the name of a file of the run: {min(taken)}")
            names[item.name] = item.number
            stems[stem] = item.number
            known = self._manifest.find(item.name)
            if known is not None and self._stands(known):
                self._manifest.keep(item.number, item.name)
                self._count(known, new=False)
            elif item.error is not None:
                self.add(item.number, Record.failed(item.name, item.error))
            else:
                yield item

    def add(self, number: int, record: Record) -> None:
        """Write down what has become of a picture.

        Raises:
            OutputError: the manifest cannot be written.
        """
        self._manifest.add(number, record)
        self._count(record, new=True)

    def finish(self, folder: Path, *, overlay_video: bool = False) -> list[Path]:
        """Put the manifest in order and make the files that are about all pictures.

        Args:
            folder: of this machine, with the manifest and the pictures' files.
            overlay_video: whether to write the frames of a video with their labels; needs the format ``labels``.

        Returns:
            The files, the manifest first.

        Raises:
            OutputError: one cannot be written.
            InputError: a picture's file has gone or is damaged.
        """
        self._manifest.finish()
        manifest = folder / MANIFEST
        paths = [manifest]
        for index, format in enumerate(self.job.found_formats()):
            if format.assemble is not None:
                paths += format.assemble(_Parts(manifest, folder, index), folder, self.job.names, self.job.options)
        if overlay_video:
            paths.append(self._overlay_video(manifest, folder))
        return paths

    def _overlay_video(self, manifest: Path, folder: Path) -> Path:
        from cliper.scale.videos import VideoSource, write_overlay_video

        assert isinstance(self.source, VideoSource)
        parts = iter(_Parts(manifest, folder, self.job.formats.index("labels")))
        part = next(parts, None)

        def labels_of(item: Item) -> Any:
            nonlocal part
            while part is not None and part.picture.id < item.number:
                part = next(parts, None)
            return None if part is None or part.picture.id > item.number else read_label_png(part.path)

        path = folder / OVERLAY_VIDEO
        write_overlay_video(path, self.source, labels_of, self.job.names)
        return path

    def _count(self, record: Record, *, new: bool) -> None:
        with self._lock:
            if not record.is_done:
                self.tally.failed += 1
            elif new:
                self.tally.done += 1
            else:
                self.tally.kept += 1
            self._seen(record, new)

    def _stands(self, record: Record) -> bool:
        if not record.is_done:
            return not self._retry_failed
        return self.place.local is None or all(self.place.exists(name) for name in record.outputs)


class _Parts:
    """The files of one format of all pictures that were done, in the order of the run; read anew each time."""

    def __init__(self, manifest: Path, folder: Path, index: int) -> None:
        self._manifest, self._folder, self._index = manifest, folder, index

    def __iter__(self) -> Iterator[Part]:
        for number, record in enumerate(read_manifest(self._manifest), start=1):
            if record.is_done:
                picture = Picture(record.input, record.width, record.height, number)
                yield Part(picture, self._folder / record.outputs[self._index])
