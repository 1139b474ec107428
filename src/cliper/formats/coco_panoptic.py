"""COCO panoptic: a picture of segment ids, and a list of segments.

A segment is all of one class in a picture, as the format has it for what is not counted ("stuff"): the method tells
classes apart, not things. Its id is the label; background has id 0, the format's "void". The list of segments travels
inside the PNG as text until the run's file is made.
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

from cliper.errors import InputError, quote_path, short_reason
from cliper.files import atomic_write, dumps, write_json_list
from cliper.formats.base import Format, FormatOptions, ImageInfo, ImageOutput, LabeledImage
from cliper.formats.coco import categories, image_entry
from cliper.formats.label_png import check_labels

__all__ = ["COCO_PANOPTIC", "segments_info", "write_panoptic_png"]

_KEY = "segments_info"


def segments_info(labels: npt.NDArray[Any]) -> list[dict[str, Any]]:
    """The list of segments of a label map.

    Example:
        >>> segments_info(np.array([[0, 3], [0, 3]]))
        [{'id': 3, 'category_id': 3, 'area': 2, 'bbox': [1, 0, 1, 2], 'iscrowd': 0}]
    """
    from scipy import ndimage

    array = check_labels(labels).astype(np.int32, copy=False)
    areas = np.bincount(array.ravel())
    return [
        {
            "id": label,
            "category_id": label,
            "area": int(areas[label]),
            "bbox": [box[1].start, box[0].start, box[1].stop - box[1].start, box[0].stop - box[0].start],
            "iscrowd": 0,
        }
        for label, box in enumerate(ndimage.find_objects(array), start=1)
        if box is not None
    ]


def write_panoptic_png(path: str | Path, labels: npt.ArrayLike) -> None:
    """Write ids as colours: red + 256 green + 65536 blue.

    Args:
        path: where to.
        labels: [H, W] integers from 0 to 65535.

    Raises:
        ShapeError: not two-dimensional, or without a pixel.
        InputError: not integers, or out of range.
        OutputError: the file cannot be written.
    """
    array = check_labels(labels)
    colours = np.zeros((*array.shape, 3), dtype=np.uint8)
    colours[..., 0], colours[..., 1] = array & 255, array >> 8
    about = PngImagePlugin.PngInfo()
    about.add_text(_KEY, dumps(segments_info(array)), zip=True)
    with atomic_write(path) as temporary:
        Image.fromarray(colours).save(temporary, format="PNG", pnginfo=about)


def _write(result: LabeledImage, path: Path, info: ImageInfo, options: FormatOptions) -> None:
    write_panoptic_png(path, result.labels)


def _merge(outputs: Iterable[ImageOutput], folder: Path, classes: Sequence[str], options: FormatOptions) -> list[Path]:
    path = folder / "panoptic.json"
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write('{"categories":' + dumps(_stuff(classes)) + ',\n"images":')
        write_json_list(stream, (image_entry(output.info) for output in outputs))
        stream.write(',\n"annotations":')
        write_json_list(stream, _annotations(outputs, folder))
        stream.write("}\n")
    return [path]


def _stuff(classes: Sequence[str]) -> list[dict[str, Any]]:
    return [{**category, "isthing": 0} for category in categories(classes)]


def _annotations(outputs: Iterable[ImageOutput], folder: Path) -> Iterator[dict[str, Any]]:
    for output in outputs:
        name = Path(os.path.relpath(output.path, folder)).as_posix()
        yield {"image_id": output.info.id, "file_name": name, _KEY: _read_segments(output.path)}


def _read_segments(path: Path) -> Any:
    """From the head of the file alone: no pixel is decoded."""
    try:
        with PngImagePlugin.PngImageFile(path) as picture:
            return json.loads(picture.info[_KEY])
    except (OSError, SyntaxError, ValueError, KeyError) as error:
        raise InputError(
            f"expected a panoptic PNG of this package, could not read {quote_path(path)} ({short_reason(error)}); "
            "run the picture again"
        ) from None


COCO_PANOPTIC = Format(
    "coco-panoptic",
    ".panoptic.png",
    "COCO panoptic PNG; panoptic.json for the run",
    _write,
    _merge,
    merged_files=("panoptic.json",),
)
