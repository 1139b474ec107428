"""CVAT's "Segmentation mask 1.1": a zip of indexed PNGs in the layout of PASCAL VOC.

``SegmentationClass`` holds the labels, ``SegmentationObject`` numbers the regions, ``labelmap.txt`` says which colour
is which class and ``ImageSets/Segmentation/default.txt`` which pictures there are. A picture's file is such a zip too.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cliper.errors import InputError, quote_path, short_reason
from cliper.files import atomic_write, to_utf8
from cliper.formats.base import Format, FormatOptions, ImageInfo, ImageOutput, LabeledImage
from cliper.formats.palette import voc_palette
from cliper.formats.regions import find_regions

__all__ = ["CVAT", "labelmap_txt", "number_regions"]

_FOLDERS = ("SegmentationClass", "SegmentationObject")

# Indices of a PNG, less that of the background.
_MAX_INDEX = 255

# A zip's table of contents is held in memory while it is written, and CVAT reads a task's zip as a whole.
_IMAGES_PER_ZIP = 10_000


def labelmap_txt(classes: Sequence[str]) -> str:
    """What ``labelmap.txt`` says: a line for the background and each class, ``name:red,green,blue::``.

    Raises:
        InputError: a name that such a line cannot hold, or more than 255 classes.

    Example:
        >>> print(labelmap_txt(["dog"]), end="")
        # label:color_rgb:parts:actions
        background:0,0,0::
        dog:128,0,0::
    """
    if len(classes) > _MAX_INDEX:
        raise InputError(f"expected at most {_MAX_INDEX} classes for CVAT, got {len(classes)}; use another format")
    for name in classes:
        if name == "background" or ":" in name or not _is_read_as_it_is(name):
            raise InputError(
                f"CVAT's masks cannot have a class {name!r}: expected none called background, none beginning with #, "
                "none with a colon or a line end and none with blanks at its ends; give it another name, as in "
                "'other name: prompt'"
            )
    names = ["background", *map(to_utf8, classes)]
    colours = voc_palette(len(names)).tolist()
    lines = [f"{name}:{','.join(map(str, colour))}::" for name, colour in zip(names, colours, strict=True)]
    return "\n".join(["# label:color_rgb:parts:actions", *lines, ""])


def number_regions(labels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """[H, W] uint8: 0 where the label is 0, else the number of the region.

    Of more regions than a PNG has indices, all of a class are one.

    Example:
        >>> number_regions(np.array([[1, 0, 1, 7]])).tolist()
        [[1, 0, 2, 3]]
    """
    numbers = np.zeros(labels.shape, dtype=np.uint8)
    for number, region in enumerate(find_regions(labels), start=1):
        if number > _MAX_INDEX:
            found = np.unique(labels[labels > 0])
            return np.where(labels > 0, np.searchsorted(found, labels) + 1, 0).astype(np.uint8)
        left, top, width, height = region.box
        numbers[top : top + height, left : left + width][region.mask] = number
    return numbers


def _is_read_as_it_is(line: str) -> bool:
    """Whether CVAT's reader, which strips lines and passes over comments, takes a line for what it says."""
    return bool(line) and line == line.strip() and not line.startswith("#") and not {"\n", "\r"} & {*line}


def _listed(info: ImageInfo) -> str:
    """A picture's line in the list of pictures, and the name of its masks.

    Raises:
        InputError: CVAT would not find it under that name.
    """
    name = info.stem
    # Of the last two its reader makes a folder, and a drive, for which it refuses the whole zip.
    if to_utf8(name) != name or not _is_read_as_it_is(name) or "\\" in name or name[1:2] == ":":
        raise InputError(
            f"CVAT's list of pictures cannot have {quote_path(info.name)}: expected a name in UTF-8, not "
            "beginning with # or a drive's letter, without line ends, backslashes and blanks at its ends; rename it"
        )
    return name


def _check_classes(classes: Sequence[str]) -> None:
    labelmap_txt(classes)


def _write(result: LabeledImage, path: Path, info: ImageInfo, options: FormatOptions) -> None:
    labels = labelmap_txt(result.classes)
    name = _listed(info)
    masks = [_png(result.labels.astype(np.uint8)), _png(number_regions(result.labels))]
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for folder, data in zip(_FOLDERS, masks, strict=True):
            _add(archive, f"{folder}/{name}.png", data)
        _add_lists(archive, labels, [name])


def _merge(outputs: Iterable[ImageOutput], folder: Path, classes: Sequence[str], options: FormatOptions) -> list[Path]:
    labels = labelmap_txt(classes)
    paths: list[Path] = []
    rest = iter(outputs)
    while some := list(islice(rest, _IMAGES_PER_ZIP)):
        path = folder / (f"cvat-{len(paths) + 1}.zip" if paths else "cvat.zip")
        names = [_listed(output.info) for output in some]
        with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for output, name in zip(some, names, strict=True):
                for place, data in zip(_FOLDERS, _read_masks(output.path), strict=True):
                    _add(archive, f"{place}/{name}.png", data)
            _add_lists(archive, labels, names)
        paths.append(path)
    return paths


def _read_masks(path: Path) -> list[bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            return [archive.read(name) for name in archive.namelist()[: len(_FOLDERS)]]
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(
            f"expected a picture's masks, could not read {quote_path(path)} ({short_reason(error)}); "
            "run the picture again"
        ) from None


def _png(indices: npt.NDArray[np.uint8]) -> bytes:
    image = Image.fromarray(indices)
    image.putpalette(voc_palette().tobytes())
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def _add_lists(archive: zipfile.ZipFile, labels: str, names: Sequence[str]) -> None:
    _add(archive, "labelmap.txt", labels.encode())
    _add(archive, "ImageSets/Segmentation/default.txt", "".join(f"{name}\n" for name in names).encode())


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Without the time and the system that would make each zip another; PNGs cannot be made smaller."""
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3
    archive.writestr(entry, data)


CVAT = Format(
    "cvat",
    ".cvat.zip",
    "CVAT segmentation masks; cvat.zip for the run",
    _write,
    _merge,
    _check_classes,
    merged_files=("cvat.zip", "cvat-*.zip"),
)
