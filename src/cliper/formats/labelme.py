"""LabelMe: polygons in one JSON file beside each picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from cliper.formats.base import Format, FormatOptions, Picture
from cliper.formats.polygons import region_polygon
from cliper.formats.regions import find_regions
from cliper.formats.text import write_json

if TYPE_CHECKING:
    from cliper.result import Segmentation

__all__ = ["LABELME", "labelme_document"]

# The version of LabelMe whose files these are like; it only warns of a much older one.
_VERSION = "5.0.0"


def labelme_document(
    labels: npt.NDArray[Any], classes: Sequence[str], picture: Picture, tolerance: float = 1.0
) -> dict[str, Any]:
    """What LabelMe's file of one picture holds: a polygon for each region, its holes joined to the outside.

    Args:
        labels: [H, W] integers, 0 is background, i + 1 is ``classes[i]``.
        classes: C names.
        picture: the file is to lie beside it.
        tolerance: of the polygons, in pixels.
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
        "imagePath": picture.name.rpartition("/")[2],
        "imageData": None,
        "imageHeight": picture.height,
        "imageWidth": picture.width,
    }


def _write(result: Segmentation, path: Path, picture: Picture, options: FormatOptions) -> None:
    write_json(path, labelme_document(result.labels, result.classes, picture, options.tolerance))


LABELME = Format("labelme", ".json", "LabelMe polygons, to lie beside the pictures", _write)
