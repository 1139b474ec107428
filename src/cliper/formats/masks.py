"""A zip of PNGs for each image: the mask of each class, or the pixels of each class on a transparent background."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cliper.files import atomic_write, to_utf8
from cliper.formats.base import Format, FormatOptions, ImageInfo, LabeledImage
from cliper.formats.regions import class_regions

__all__ = ["CUTOUTS", "MASKS", "class_file_name"]

_DATE = (1980, 1, 1, 0, 0, 0)  # of files in the zip: the same result gives the same bytes
_UNSAFE = '<>:"/\\|?*'  # refused in file names by Windows


def class_file_name(label: int, name: str) -> str:
    """Name of a class's file: its label, and its name with ``_`` for characters that file systems refuse.

    Example:
        >>> class_file_name(2, "and/or?")
        '2-and_or_.png'
    """
    safe = "".join("_" if c in _UNSAFE or not c.isprintable() else c for c in to_utf8(name))
    return f"{label}-{safe[:100].strip('. ')}.png"


def _mask(result: LabeledImage, mask: npt.NDArray[np.bool_]) -> Image.Image:
    return Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0)))


def _cutout(result: LabeledImage, mask: npt.NDArray[np.bool_]) -> Image.Image:
    """The class's pixels inside their bounding box; the others are transparent."""
    cutout = result.image.convert("RGBA")
    cutout.putalpha(_mask(result, mask))
    return cutout.crop(cutout.getchannel("A").getbbox())


def _writer(
    draw: Callable[[LabeledImage, npt.NDArray[np.bool_]], Image.Image],
) -> Callable[[LabeledImage, Path, ImageInfo, FormatOptions], None]:
    def write(result: LabeledImage, path: Path, info: ImageInfo, options: FormatOptions) -> None:
        with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for region in class_regions(result.labels):
                stream = io.BytesIO()
                draw(result, result.labels == region.label).save(stream, format="PNG")
                name = class_file_name(region.label, result.classes[region.label - 1])
                archive.writestr(zipfile.ZipInfo(name, _DATE), stream.getvalue())

    return write


MASKS = Format("masks", ".masks.zip", "a zip of one PNG for each class found, 255 inside", _writer(_mask))
CUTOUTS = Format(
    "cutouts",
    ".cutouts.zip",
    "a zip of each class found, cut out with transparency",
    _writer(_cutout),
    shows_image=True,
)
