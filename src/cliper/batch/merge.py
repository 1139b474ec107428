"""The files about all images of a run, made from the images' files, and the summary."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliper.batch.task import SegmentTask
from cliper.errors import InputError
from cliper.formats import ImageInfo, ImageOutput
from cliper.result import why_absent
from cliper.runner.manifest import DAMAGED, Record
from cliper.runner.run import Run

__all__ = ["ImageOutputs", "merge_formats", "summarize"]


def merge_formats(run: Run, task: SegmentTask) -> list[Path]:
    """Write the files about all images, such as one COCO file, into the run's folder on this machine; their paths.

    Raises:
        OutputError: one cannot be written.
        InputError: an image's file is missing or damaged. The records of all such images say so, and the images are
            processed again when the run is resumed.
    """
    paths: list[Path] = []
    for index, format in enumerate(task.found_formats):
        if format.merge is not None:
            outputs = ImageOutputs(run, index)
            try:
                paths += format.merge(outputs, run.run_dir.folder, task.class_names, task.options)
            except InputError:
                found = 0
                with tempfile.TemporaryDirectory(prefix="cliper-") as folder:
                    while outputs.damaged > found:  # once more without those that were found
                        found = outputs.damaged
                        with contextlib.suppress(InputError):
                            format.merge(outputs, Path(folder), task.class_names, task.options)
                raise
        if format.write_failed is not None:
            failed = ((one.input, one.error or "") for _, one in run.manifest.records() if not one.is_done)
            paths += format.write_failed(failed, run.run_dir.folder)
    return paths


def summarize(run: Run, task: SegmentTask) -> dict[str, Any]:
    """For each class the number of images in which it was found and its mean share of their area; by name.

    Classes that were found nowhere have 0 images, and ``absent``: why, where their confidence is highest.
    """
    images, areas, best = (dict.fromkeys(task.class_names, 0.0) for _ in range(3))
    for _, record in run.manifest.records():
        for name, area in record.areas.items():
            if area > 0 and name in images:
                images[name] += 1
                areas[name] += area
        for name, confidence in record.details.get("confidence", {}).items():
            best[name] = max(confidence, best[name])
    return {
        name: {"images": int(count), "mean_area": round(areas[name] / count, 6)}
        if count
        else {"images": 0, "mean_area": 0.0, "absent": why_absent(best[name], task.models.settings)}
        for name, count in images.items()
    }


class ImageOutputs:
    """The files of the format of that index, of all images that are done, in order; read anew each time.

    An image whose file is missing or damaged is noted in the manifest, and left out the next time.
    """

    def __init__(self, run: Run, index: int) -> None:
        self._run, self._index = run, index
        self.damaged = 0

    def __iter__(self) -> Iterator[ImageOutput]:
        storage = self._run.run_dir.storage
        for number, record in self._run.manifest.records():
            if record.is_done:
                name = record.outputs[self._index]
                info = ImageInfo(record.input, record.details["width"], record.details["height"], number)
                output = _RunOutput(info, self._run.run_dir.folder / name, self._note)
                if storage.local is None and not output.path.exists():
                    with output.reading():
                        storage.download(name, output.path)
                yield output

    def _note(self, info: ImageInfo, error: InputError) -> None:
        self.damaged += 1
        self._run.manifest.add(info.id, Record.failed(info.name, f"{DAMAGED}{error}"))


@dataclass(frozen=True)
class _RunOutput(ImageOutput):
    note: Callable[[ImageInfo, InputError], None]

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        try:
            with super().reading():
                yield
        except InputError as error:
            self.note(self.info, error)
            raise
