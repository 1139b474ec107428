"""LabelMe: polygons in one JSON file beside each picture."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from cliper.files import write_json
from cliper.formats.base import Format, FormatOptions, ImageInfo, LabeledImage
from cliper.formats.polygons import region_polygon
from cliper.formats.regions import find_regions

__all__ = ["LABELME", "labelme_document"]

# The version of LabelMe whose files these are like; it only warns of a much older one.
_VERSION = "5.0.0"


def labelme_document(
    labels: npt.NDArray[Any],
    classes: Sequence[str],
    info: ImageInfo,
    tolerance: float = 1.0,
    *,
    folder: Path | None = None,
) -> dict[str, Any]:
    """What LabelMe's file of one picture holds: a polygon for each region, its holes joined to the outside.

    Args:
        labels: [H, W] integers, 0 is background, i + 1 is ``classes[i]``.
        classes: C names.
        picture: its file is looked for at its ``source``, or without one beside LabelMe's file.
        tolerance: of the polygons, in pixels.
        folder: where LabelMe's file is to lie.
    """
    shapes = [
        {
            "label": classes[region.label - 1],
            "points": region_polygon(region, tolerance).astype(float).tolist(),
            "group_id": None,
            "shape_type": "polygon",
            "flags": {},
        }
        for region in find_regions(labels)
    ]
    return {
        "version": _VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": _image_path(info, folder),
        "imageData": None,
        "imageHeight": info.height,
        "imageWidth": info.width,
    }


def _image_path(info: ImageInfo, folder: Path | None) -> str:
    """As LabelMe looks for it: relative to the folder of its own file, without links in the folders on the way up."""
    if info.source is not None and folder is not None:
        source = Path(os.path.realpath(info.source.parent)) / info.source.name
        with contextlib.suppress(ValueError):  # another drive
            return Path(os.path.relpath(source, os.path.realpath(folder))).as_posix()
    return info.name.rpartition("/")[2]


def _write(result: LabeledImage, path: Path, info: ImageInfo, options: FormatOptions) -> None:
    write_json(path, labelme_document(result.labels, result.classes, info, options.tolerance, folder=path.parent))


LABELME = Format("labelme", ".json", "LabelMe polygons, one file a picture", _write)
