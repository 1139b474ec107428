"""COCO panoptic: a PNG of segment ids, and a list of segments.

There is one segment per class and image, which the format calls "stuff": the method separates classes, not objects.
The id of a segment is its label; background has id 0, the format's "void". The list of segments is stored in the PNG
as text until the run's file is written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

from cliper.files import atomic_write, dumps
from cliper.formats.base import Format, FormatOptions, ImageInfo, ImageOutput, LabeledImage
from cliper.formats.coco import categories, write_coco_json
from cliper.formats.label_png import check_labels
from cliper.formats.regions import class_regions

__all__ = ["COCO_PANOPTIC", "segments_info", "write_panoptic_png"]

_KEY = "segments_info"


def segments_info(labels: npt.ArrayLike) -> list[dict[str, Any]]:
    """The list of segments of a label map.

    Example:
        >>> segments_info([[0, 3], [0, 3]])
        [{'id': 3, 'category_id': 3, 'area': 2, 'bbox': [1, 0, 1, 2], 'iscrowd': 0}]
    """
    return [
        {
            "id": region.label,
            "category_id": region.label,
            "area": region.area,
            "bbox": list(region.box),
            "iscrowd": 0,
        }
        for region in class_regions(labels)
    ]


def write_panoptic_png(path: str | Path, labels: npt.ArrayLike) -> None:
    """Write labels as colours, label = red + 256 green, with the list of segments as text.

    Args:
        path: the file to write.
        labels: [H, W] integers from 0 to 65535.

    Raises:
        ShapeError: not two-dimensional, or without a pixel.
        InputError: not integers, or out of range.
        OutputError: the file cannot be written.
    """
    array = check_labels(labels)
    colours = np.zeros((*array.shape, 3), dtype=np.uint8)
    colours[..., 0], colours[..., 1] = array & 255, array >> 8
    metadata = PngImagePlugin.PngInfo()
    metadata.add_text(_KEY, dumps(segments_info(array)), zip=True)
    with atomic_write(path) as temporary:
        Image.fromarray(colours).save(temporary, format="PNG", pnginfo=metadata)


def _write(result: LabeledImage, path: Path, info: ImageInfo, options: FormatOptions) -> None:
    write_panoptic_png(path, result.labels)


def _merge(outputs: Iterable[ImageOutput], folder: Path, classes: Sequence[str], options: FormatOptions) -> list[Path]:
    path = folder / "panoptic.json"
    stuff = [{**category, "isthing": 0} for category in categories(classes)]
    write_coco_json(path, stuff, outputs, _annotations(outputs, folder))
    return [path]


def _annotations(outputs: Iterable[ImageOutput], folder: Path) -> Iterator[dict[str, Any]]:
    for output in outputs:
        with output.reading(), PngImagePlugin.PngImageFile(output.path) as png:  # reads the header, no pixels
            segments = json.loads(png.info[_KEY])
        name = Path(os.path.relpath(output.path, folder)).as_posix()
        yield {"image_id": output.info.id, "file_name": name, _KEY: segments}


COCO_PANOPTIC = Format(
    "coco-panoptic",
    ".panoptic.png",
    "COCO panoptic PNG; panoptic.json for the run",
    _write,
    _merge,
    merged_files=("panoptic.json",),
)
