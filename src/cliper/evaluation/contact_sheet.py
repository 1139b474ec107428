"""The images with the lowest and highest mIoU on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cliper.evaluation.task import EvaluationTask, SampleItem
from cliper.files import atomic_write
from cliper.runner.manifest import Record

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["SheetRow", "draw_sheet", "worst_and_best", "write_sheet"]

_WIDTH, _HEIGHT, _GAP, _CAPTION = 280, 210, 8, 18


class SheetRow(NamedTuple):
    """An image with its true and predicted labels, each [H, W], and a caption."""

    image: Image.Image
    truth: npt.NDArray[Any]
    prediction: npt.NDArray[Any]
    caption: str


def worst_and_best(records: Sequence[Record], variant: str, count: int) -> list[tuple[Record, float]]:
    """The ``count`` worst images, worst first, and then the ``count`` best, best first, each with its mIoU."""
    rated = [(record, record.details["miou"][variant]) for record in records if record.is_done]
    rated = sorted((one for one in rated if one[1] is not None), key=lambda one: (one[1], one[0].input))
    worst = rated[:count]
    best = rated[len(worst) :][::-1][:count]
    return [*worst, *best]


def write_sheet(path: Path, task: EvaluationTask, records: Sequence[Record], count: int) -> list[Path]:
    """Segment the ``count`` worst and best images of the first variant again, and write them as PNG or JPEG.

    Returns:
        The path; nothing if no image could be rated.

    Raises:
        ImageError: an image cannot be read any more.
        OutputError: the sheet cannot be written.
    """
    variant = task.variants[0].label
    chosen = worst_and_best(records, variant, count)
    if not chosen:
        return []
    samples = {sample.name: sample for sample in task.samples()}
    rows = []
    with task.load() as model:
        for record, miou in chosen:
            _, loaded = task.read(model, SampleItem(0, samples[record.input]), None)
            ((labels, assign_labels),) = task.process({variant: model[variant]}, [loaded])
            truth = np.where(labels == task.benchmark.ignore_label, 0, labels).astype(np.int32)
            caption = f"{record.input}   mIoU {miou:.3f}"
            rows.append(SheetRow(loaded[0], truth, assign_labels[variant]().labels, caption))
    sheet = draw_sheet(rows, task.benchmark.class_names)
    with atomic_write(path) as temporary:
        sheet.save(temporary)
    return [path]


def draw_sheet(rows: Sequence[SheetRow], classes: Sequence[str]) -> Image.Image:
    """Three columns for each row: the image, its ground truth, the prediction."""
    from PIL import Image, ImageDraw

    from cliper.formats import draw_overlay

    width, height = 3 * _WIDTH + 4 * _GAP, len(rows) * (_HEIGHT + _CAPTION + _GAP) + _GAP
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    for index, row in enumerate(rows):
        top = _GAP + index * (_HEIGHT + _CAPTION + _GAP)
        pen.text((_GAP, top), row.caption, fill="black")
        drawn = (draw_overlay(row.image, labels, classes, legend=False) for labels in (row.truth, row.prediction))
        for column, tile in enumerate((row.image, *drawn)):
            small = tile.copy()
            small.thumbnail((_WIDTH, _HEIGHT))
            sheet.paste(small, (_GAP + column * (_WIDTH + _GAP), top + _CAPTION))
    return sheet
