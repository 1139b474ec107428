"""The images with the lowest and highest mIoU on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cliper.decode_pool import DecodePool
from cliper.evaluation.task import EvaluationTask, SampleItem
from cliper.files import atomic_write
from cliper.formats.legend import LegendEntry, add_legend, find_font
from cliper.formats.palette import overlay_palette
from cliper.runner.manifest import Record

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["worst_and_best", "write_sheet"]

_WIDTH, _HEIGHT, _GAP, _CAPTION = 320, 240, 10, 22
_GREY = (128, 128, 128)


def worst_and_best(records: Sequence[Record], variant: str, count: int) -> list[tuple[Record, float]]:
    """The ``count`` worst images, worst first, and then the ``count`` best, best first, each with its mIoU."""
    rated = [(record, record.details["miou"][variant]) for record in records if record.is_done]
    rated = sorted((one for one in rated if one[1] is not None), key=lambda one: (one[1], one[0].input))
    worst = rated[:count]
    best = rated[len(worst) :][::-1][:count]
    return [*worst, *best]


def write_sheet(path: Path, task: EvaluationTask, records: Sequence[Record], count: int) -> list[Path]:
    """Segment the ``count`` worst and best images of the first variant again, and write them as PNG or JPEG.

    Each row has the image, its ground truth, with what is not counted in grey, and the prediction; a legend names the
    classes that occur. Returns the path; nothing if no image was rated.
    """
    from PIL import Image, ImageDraw

    label = task.variants[0].label
    chosen = worst_and_best(records, label, count)
    if not chosen:
        return []
    samples = {sample.name: sample for sample in task.samples()}
    row_height = _CAPTION + _HEIGHT + _GAP
    sheet = Image.new("RGB", (3 * _WIDTH + 4 * _GAP, _CAPTION + len(chosen) * row_height + _GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for column, heading in enumerate(("image", "ground truth", "prediction")):
        pen.text((_GAP + column * (_WIDTH + _GAP), _GAP), heading, fill="black", font=find_font(heading, 16))
    names, found, any_ignored = task.label_names(task.variants[0]), set[int](), False
    with task.load() as model, DecodePool(1, handler=task.decoder) as decoder:
        first = {label: model[label]}
        for row, (record, miou) in enumerate(chosen):
            top = _CAPTION + _GAP + row * row_height
            caption = f"{record.input}   mIoU {miou:.3f}"
            pen.text((_GAP, top), caption, fill="black", font=find_font(caption, 13))
            _, loaded = task.read(first, SampleItem(0, record.input, samples[record.input]), decoder)
            ((truth, assign_labels),) = task.process(first, [loaded])
            image, prediction = loaded[0], assign_labels[label]().labels
            ignored = truth == task.benchmark.ignore_label
            any_ignored |= bool(ignored.any())
            found.update(np.unique(truth[~ignored]).tolist(), np.unique(prediction).tolist())
            tiles = (image.copy(), _draw(image, truth, names, ignored), _draw(image, prediction, names))
            for column, tile in enumerate(tiles):
                tile.thumbnail((_WIDTH, _HEIGHT))
                sheet.paste(tile, (_GAP + column * (_WIDTH + _GAP), top + _CAPTION))
    with atomic_write(path) as temporary:
        add_legend(sheet, _legend(names, found, any_ignored, 0 not in task.benchmark.ignore)).save(temporary)
    return [path]


def _draw(
    image: Image.Image, labels: npt.NDArray[Any], names: Sequence[str], ignored: npt.NDArray[np.bool_] | None = None
) -> Image.Image:
    """The overlay of labels; ignored pixels are grey."""
    from PIL import Image

    from cliper.formats import draw_overlay

    if ignored is None:
        return draw_overlay(image, labels, names, legend=False)
    drawn = draw_overlay(image, np.where(ignored, 0, labels).astype(np.int32), names, legend=False)
    drawn.paste(_GREY, (0, 0), Image.fromarray(ignored.astype(np.uint8) * np.uint8(215)))
    return drawn


def _legend(names: Sequence[str], found: set[int], any_ignored: bool, has_background: bool) -> list[LegendEntry]:
    """The classes of ``found``, then what is not counted, then background."""
    palette = overlay_palette(len(names) + 1).tolist()
    entries = [
        LegendEntry(name, None, tuple(palette[label])) for label, name in enumerate(names, start=1) if label in found
    ]
    if any_ignored:
        entries.append(LegendEntry("not counted", None, _GREY))
    return [*entries, LegendEntry("background" if has_background else "no class", None, None)]
