"""The files about all images of a run, made from the images' files, and the summary."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from cliper.batch.task import SegmentTask
from cliper.errors import ImageError, InputError
from cliper.formats import Format, ImageInfo, ImageOutput
from cliper.runner.manifest import Record
from cliper.runner.run import Run

__all__ = ["ImageOutputs", "merge_formats", "summarize"]

_BLOCK = 256  # images whose files are checked together to find damaged ones


def merge_formats(run: Run, task: SegmentTask) -> list[Path]:
    """Write the files about all images, such as one COCO file, into the run's folder on this machine.

    Returns:
        Their paths.

    Raises:
        OutputError: one cannot be written.
        InputError: an image's file is missing or damaged. The image's record says so, and the image is processed again
            when the run is resumed.
    """
    paths: list[Path] = []
    for index, format in enumerate(task.found_formats):
        if format.merge is not None:
            outputs = ImageOutputs(run, index)
            try:
                paths += format.merge(outputs, run.run_dir.folder, task.class_names, task.options)
            except (InputError, ImageError):
                if not outputs.is_missing:
                    _mark_damaged(run, task, outputs, format)
                raise
    return paths


def summarize(run: Run, classes: Sequence[str]) -> dict[str, Any]:
    """For each class the number of images in which it was found and its mean share of their area; by name.

    Classes that were found nowhere have 0 images.
    """
    images, areas = dict.fromkeys(classes, 0), dict.fromkeys(classes, 0.0)
    for _, record in run.manifest.records():
        for name, area in record.areas.items():
            if area > 0 and name in images:
                images[name] += 1
                areas[name] += area
    return {
        name: {"images": count, "mean_area": round(areas[name] / count, 6) if count else 0.0}
        for name, count in images.items()
    }


class ImageOutputs:
    """The files of the format of that index, of all images that are done, in order; read anew each time."""

    def __init__(self, run: Run, index: int) -> None:
        self._run, self._index = run, index
        self.is_missing = False
        """Whether a file could not be fetched; its image is noted as damaged."""

    def __iter__(self) -> Iterator[ImageOutput]:
        storage = self._run.storage
        for number, record in self._run.manifest.records():
            if record.is_done:
                name = record.outputs[self._index]
                path = self._run.run_dir.folder / name
                if storage.local is None and not path.exists():
                    try:
                        storage.download(name, path)
                    except InputError as error:
                        self.is_missing = True
                        self._run.manifest.add(number, Record.damaged(record.input, error))
                        raise
                yield ImageOutput(
                    ImageInfo(record.input, record.details["width"], record.details["height"], number), path
                )


def _mark_damaged(run: Run, task: SegmentTask, outputs: ImageOutputs, format: Format) -> None:
    """Find the images whose files cannot be used, a block at a time, then one by one."""
    damaged = []
    rest = iter(outputs)
    with tempfile.TemporaryDirectory(prefix="cliper-") as folder:
        while block := list(islice(rest, _BLOCK)):
            if _problem(task, format, block, folder) is not None:
                found = ((output, _problem(task, format, [output], folder)) for output in block)
                damaged += [(output.info, problem) for output, problem in found if problem is not None]
    for info, problem in damaged:
        run.manifest.add(info.id, Record.damaged(info.name, problem))


def _problem(task: SegmentTask, format: Format, outputs: Sequence[ImageOutput], folder: str) -> Exception | None:
    assert format.merge is not None
    try:
        format.merge(outputs, Path(folder), task.class_names, task.options)
    except (InputError, ImageError) as error:
        return error
    return None
