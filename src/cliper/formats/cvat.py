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
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cliper.decoding import one_line, shown_path
from cliper.errors import InputError
from cliper.formats.atomic import atomic_path
from cliper.formats.base import Format, FormatOptions, Part, Picture
from cliper.formats.palette import voc_palette
from cliper.formats.regions import find_regions
from cliper.formats.text import portable

if TYPE_CHECKING:
    from cliper.result import Segmentation

__all__ = ["CVAT", "label_map", "number_regions"]

_FOLDERS = ("SegmentationClass", "SegmentationObject")

# Indices of a PNG, less that of the background.
_MOST = 255

# A zip's table of contents is held in memory while it is written, and CVAT reads a task's zip as a whole.
_PICTURES_A_ZIP = 10_000


def label_map(classes: Sequence[str]) -> str:
    """What ``labelmap.txt`` says: a line for the background and each class, ``name:red,green,blue::``.

    Raises:
        InputError: a name that such a line cannot hold, or more than 255 classes.

    Example:
        >>> print(label_map(["dog"]), end="")
        # label:color_rgb:parts:actions
        background:0,0,0::
        dog:128,0,0::
    """
    if len(classes) > _MOST:
        raise InputError(f"expected at most {_MOST} classes for CVAT's masks, got {len(classes)}; use another format")
    for name in classes:
        if name == "background" or name.startswith("#") or ":" in name or len(name.splitlines()) != 1:
            raise InputError(
                f"CVAT's masks cannot have a class {name!r}: expected none called background, none beginning with # "
                "and none with a colon or a line end; give it another name, as in 'other name: prompt'"
            )
    names = ["background", *map(portable, classes)]
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
        if number > _MOST:
            found = np.unique(labels[labels > 0])
            return np.where(labels > 0, np.searchsorted(found, labels) + 1, 0).astype(np.uint8)
        left, top, width, height = region.box
        numbers[top : top + height, left : left + width][region.mask] = number
    return numbers


def _check(classes: tuple[str, ...]) -> None:
    label_map(classes)


def _write(result: Segmentation, path: Path, picture: Picture, options: FormatOptions) -> None:
    labels = label_map(result.classes)
    masks = [_png(result.labels.astype(np.uint8)), _png(number_regions(result.labels))]
    name = portable(picture.stem)
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for folder, data in zip(_FOLDERS, masks, strict=True):
            _add(archive, f"{folder}/{name}.png", data)
        _add_lists(archive, labels, [name])


def _assemble(parts: Iterable[Part], folder: Path, classes: tuple[str, ...], options: FormatOptions) -> list[Path]:
    labels = label_map(classes)
    paths: list[Path] = []
    rest = iter(parts)
    while some := list(islice(rest, _PICTURES_A_ZIP)):
        path = folder / (f"cvat-{len(paths) + 1}.zip" if paths else "cvat.zip")
        names = [portable(part.picture.stem) for part in some]
        with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for part, name in zip(some, names, strict=True):
                for place, data in zip(_FOLDERS, _read_masks(part.path), strict=True):
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
            f"expected a picture's masks, could not read {shown_path(path)} ({one_line(error)}); run the picture again"
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
    _assemble,
    _check,
    run_files=("cvat.zip", "cvat-*.zip"),
)
