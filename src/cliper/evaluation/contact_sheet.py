"""The pictures that went worst and best, on one sheet: picture, ground truth, prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cliper.datasets import Benchmark, Sample
from cliper.evaluation.loading import Loaded
from cliper.evaluation.records import Record
from cliper.evaluation.report import picture_miou
from cliper.evaluation.runner import segment_loaded

if TYPE_CHECKING:
    from PIL import Image

    from cliper.segmenter import Segmenter

__all__ = ["Row", "draw_sheet", "pick_extremes", "write_sheet"]

_WIDTH, _HEIGHT, _GAP, _CAPTION = 280, 210, 8, 18


class Row(NamedTuple):
    """A picture with its true and predicted labels, each [H, W], and a caption."""

    picture: Image.Image
    truth: npt.NDArray[Any]
    prediction: npt.NDArray[Any]
    caption: str


def pick_extremes(
    records: Sequence[Record], benchmark: Benchmark, variant: str, count: int
) -> list[tuple[Record, float]]:
    """The ``count`` worst pictures, worst first, and then the ``count`` best, best first, each with its mIoU."""
    rated = [(r, picture_miou(r, benchmark, variant)) for r in records if r.error is None]
    rated = sorted((item for item in rated if not math.isnan(item[1])), key=lambda item: (item[1], item[0].name))
    worst = rated[:count]
    best = rated[len(worst) :][::-1][:count]
    return [*worst, *best]


def write_sheet(
    path: Path,
    chosen: Sequence[tuple[Record, float]],
    samples: Sequence[Sample],
    benchmark: Benchmark,
    segmenter: Segmenter,
) -> Path:
    """Segment the chosen pictures again, and write the sheet as PNG or JPEG, by the suffix.

    Raises:
        ImageError: a picture that could be read before cannot be any more.
        OutputError: the sheet cannot be written.
    """
    from cliper.files import atomic_write

    by_name = {sample.name: sample for sample in samples}
    rows = []
    for record, miou in chosen:
        sample = by_name[record.name]
        whole, labels = benchmark.read_whole(sample)
        picture, truth = sample.crop(whole, labels)
        (found,) = segment_loaded(benchmark, segmenter, [Loaded(sample, whole, picture, truth)])
        shown = np.where(truth == benchmark.ignore_label, 0, truth).astype(np.int32)
        rows.append(Row(picture, shown, found, f"{sample.name}   mIoU {miou:.3f}"))
    sheet = draw_sheet(rows, benchmark.class_names)
    with atomic_write(path) as temporary:
        sheet.save(temporary)
    return path


def draw_sheet(rows: Sequence[Row], classes: Sequence[str]) -> Image.Image:
    """Three pictures side by side for each row: as it is, with its ground truth, with the prediction."""
    from PIL import Image, ImageDraw

    from cliper.formats import draw_overlay

    width, height = 3 * _WIDTH + 4 * _GAP, len(rows) * (_HEIGHT + _CAPTION + _GAP) + _GAP
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    for index, row in enumerate(rows):
        top = _GAP + index * (_HEIGHT + _CAPTION + _GAP)
        pen.text((_GAP, top), row.caption, fill="black")
        drawn = (draw_overlay(row.picture, labels, classes, legend=False) for labels in (row.truth, row.prediction))
        for column, tile in enumerate((row.picture, *drawn)):
            small = tile.copy()
            small.thumbnail((_WIDTH, _HEIGHT))
            sheet.paste(small, (_GAP + column * (_WIDTH + _GAP), top + _CAPTION))
    return sheet
