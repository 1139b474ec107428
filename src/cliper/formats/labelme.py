"""LabelMe: a JSON file of polygons for each image."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from cliper.files import write_json
from cliper.formats.base import Format, FormatOptions, ImageInfo, LabeledImage
from cliper.formats.polygons import region_polygon
from cliper.formats.regions import find_regions

__all__ = ["LABELME", "labelme_document"]

# The version of LabelMe that reads such files; it warns of a much older one.
_VERSION = "5.0.0"


def labelme_document(result: LabeledImage, info: ImageInfo, folder: Path, options: FormatOptions) -> dict[str, Any]:
    """The LabelMe document of one image: a polygon for each region, holes bridged to the outer border.

    Args:
        result: what to convert.
        info: the image; without a ``source`` LabelMe looks for it beside its own file.
        folder: folder of the LabelMe file.
        options: tolerance of the polygons, and smallest region.
    """
    shapes = [
        {
            "label": result.classes[region.label - 1],
            "points": region_polygon(region, options.tolerance).astype(float).tolist(),
            "group_id": None,
            "shape_type": "polygon",
            "flags": {},
        }
        for region in find_regions(result.labels, options.min_area)
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


def _image_path(info: ImageInfo, folder: Path) -> str:
    """Path of the image relative to the LabelMe file's folder; symbolic links in folders are resolved."""
    if info.source is not None:
        source = Path(os.path.realpath(info.source.parent)) / info.source.name
        with contextlib.suppress(ValueError):  # on another drive
            return Path(os.path.relpath(source, os.path.realpath(folder))).as_posix()
    return info.name.rpartition("/")[2]


def _write(result: LabeledImage, path: Path, info: ImageInfo, options: FormatOptions) -> None:
    write_json(path, labelme_document(result, info, path.parent, options))


LABELME = Format("labelme", ".json", "LabelMe polygons, one file per image", _write)
