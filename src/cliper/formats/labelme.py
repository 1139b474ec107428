"""LabelMe: polygons in one JSON file beside each picture."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from cliper.files import write_json
from cliper.formats.base import Format, FormatOptions, LabeledImage, Picture
from cliper.formats.polygons import region_polygon
from cliper.formats.regions import find_regions

__all__ = ["LABELME", "labelme_document"]

# The version of LabelMe whose files these are like; it only warns of a much older one.
_VERSION = "5.0.0"


def labelme_document(
    labels: npt.NDArray[Any],
    classes: Sequence[str],
    picture: Picture,
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
        "imagePath": _image_path(picture, folder),
        "imageData": None,
        "imageHeight": picture.height,
        "imageWidth": picture.width,
    }


def _image_path(picture: Picture, folder: Path | None) -> str:
    """As LabelMe looks for it: relative to the folder of its own file, without links in the folders on the way up."""
    if picture.source is not None and folder is not None:
        source = Path(os.path.realpath(picture.source.parent)) / picture.source.name
        with contextlib.suppress(ValueError):  # another drive
            return Path(os.path.relpath(source, os.path.realpath(folder))).as_posix()
    return picture.name.rpartition("/")[2]


def _write(result: LabeledImage, path: Path, picture: Picture, options: FormatOptions) -> None:
    write_json(path, labelme_document(result.labels, result.classes, picture, options.tolerance, folder=path.parent))


LABELME = Format("labelme", ".json", "LabelMe polygons, one file a picture", _write)
