"""The images with the lowest and highest mIoU on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cliper.decode_pool import DecodePool
from cliper.evaluation.task import EvaluationTask, SampleItem
from cliper.files import atomic_write
from cliper.runner.manifest import Record

__all__ = ["worst_and_best", "write_sheet"]

_WIDTH, _HEIGHT, _GAP, _CAPTION = 280, 210, 8, 18


def worst_and_best(records: Sequence[Record], variant: str, count: int) -> list[tuple[Record, float]]:
    """The ``count`` worst images, worst first, and then the ``count`` best, best first, each with its mIoU."""
    rated = [(record, record.details["miou"][variant]) for record in records if record.is_done]
    rated = sorted((one for one in rated if one[1] is not None), key=lambda one: (one[1], one[0].input))
    worst = rated[:count]
    best = rated[len(worst) :][::-1][:count]
    return [*worst, *best]


def write_sheet(path: Path, task: EvaluationTask, records: Sequence[Record], count: int) -> list[Path]:
    """Segment the ``count`` worst and best images of the first variant again, and write them as PNG or JPEG.

    Each row has the image, its ground truth and the prediction. Returns the path; nothing if no image was rated.
    """
    from PIL import Image, ImageDraw

    from cliper.formats import draw_overlay

    label = task.variants[0].label
    chosen = worst_and_best(records, label, count)
    if not chosen:
        return []
    samples = {sample.name: sample for sample in task.samples()}
    row_height = _CAPTION + _HEIGHT + _GAP
    sheet = Image.new("RGB", (3 * _WIDTH + 4 * _GAP, len(chosen) * row_height + _GAP), "white")
    pen = ImageDraw.Draw(sheet)
    with task.load() as model, DecodePool(1, handler=task.decoder) as decoder:
        first = {label: model[label]}
        for row, (record, miou) in enumerate(chosen):
            top = _GAP + row * row_height
            pen.text((_GAP, top), f"{record.input}   mIoU {miou:.3f}", fill="black")
            _, loaded = task.read(first, SampleItem(0, record.input, samples[record.input]), decoder)
            ((truth, assign_labels),) = task.process(first, [loaded])
            truth = np.where(truth == task.benchmark.ignore_label, 0, truth).astype(np.int32)
            image = loaded[0]
            names = task.benchmark.class_names
            drawn = (draw_overlay(image, one, names, legend=False) for one in (truth, assign_labels[label]().labels))
            for column, tile in enumerate((image.copy(), *drawn)):
                tile.thumbnail((_WIDTH, _HEIGHT))
                sheet.paste(tile, (_GAP + column * (_WIDTH + _GAP), top + _CAPTION))
    with atomic_write(path) as temporary:
        sheet.save(temporary)
    return [path]
