"""CVAT's "Segmentation mask 1.1": a zip of indexed PNGs in the layout of PASCAL VOC.

``SegmentationClass`` holds the label maps, ``SegmentationObject`` numbers the regions, ``labelmap.txt`` lists the
classes with their colours and ``ImageSets/Segmentation/default.txt`` the images. The file of one image is such a zip,
too.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cliper.errors import InputError, quote_path
from cliper.files import atomic_write, to_utf8
from cliper.formats.base import Format, FormatOptions, ImageInfo, ImageOutput, LabeledImage
from cliper.formats.label_png import encode_label_png
from cliper.formats.palette import voc_palette
from cliper.formats.regions import class_regions, clear_small_regions, find_regions

__all__ = ["CVAT", "labelmap_txt", "number_regions"]

_FOLDERS = ("SegmentationClass", "SegmentationObject")

# Indices of a PNG, less that of the background.
_MAX_INDEX = 255

# The directory of a zip is in memory while it is written, and CVAT reads a task's zip as a whole.
_IMAGES_PER_ZIP = 10_000


def labelmap_txt(classes: Sequence[str]) -> str:
    """The text of ``labelmap.txt``: a line ``name:red,green,blue::`` for the background and each class.

    Raises:
        InputError: a name that such a line cannot hold, or more than 255 classes.

    Example:
        >>> print(labelmap_txt(["dog"]), end="")
        # label:color_rgb:parts:actions
        background:0,0,0::
        dog:128,0,0::
    """
    if len(classes) > _MAX_INDEX:
        raise InputError(
            f"expected at most {_MAX_INDEX} classes for CVAT's masks, got {len(classes)}; use another format"
        )
    for name in classes:
        if name == "background" or ":" in name or not _is_plain_line(name):
            raise InputError(
                f"CVAT's masks cannot have a class {name!r}: expected none called background, none beginning with #, "
                "none with a colon or a line end and none with blanks at its ends; give it another name, as in "
                "'other name: prompt'"
            )
    names = ["background", *map(to_utf8, classes)]
    colours = voc_palette(len(names)).tolist()
    lines = [f"{name}:{','.join(map(str, colour))}::\n" for name, colour in zip(names, colours, strict=True)]
    return "# label:color_rgb:parts:actions\n" + "".join(lines)


def number_regions(labels: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """[H, W] uint8: 0 where the label is 0, else the number of the region.

    If there are more than 255 regions, all pixels of a class are one.

    Example:
        >>> number_regions([[1, 0, 1, 7]]).tolist()
        [[1, 0, 2, 3]]
    """
    regions = list(islice(find_regions(labels), _MAX_INDEX + 1))
    if len(regions) > _MAX_INDEX:
        regions = list(class_regions(labels))
    numbers = np.zeros(np.shape(labels), dtype=np.uint8)
    for number, region in enumerate(regions, start=1):
        left, top, width, height = region.box
        numbers[top : top + height, left : left + width][region.mask] = number
    return numbers


def _is_plain_line(line: str) -> bool:
    """Whether CVAT's reader, which strips lines and skips comments, keeps this line unchanged."""
    return bool(line) and line == line.strip() and not line.startswith("#") and not {"\n", "\r"} & {*line}


def _mask_name(info: ImageInfo) -> str:
    """The image's line in the list of images, and the name of its masks.

    Raises:
        InputError: CVAT would not find the image under that name.
    """
    name = info.stem
    # CVAT's reader takes a backslash for a folder and a second character ":" for a drive, and refuses the whole zip.
    if to_utf8(name) != name or not _is_plain_line(name) or "\\" in name or name[1:2] == ":":
        raise InputError(
            f"CVAT's list of images cannot have {quote_path(info.name)}: expected a name in UTF-8, not "
            "beginning with # or a drive's letter, without line ends, backslashes and blanks at its ends; rename it"
        )
    return name


def _check_classes(classes: Sequence[str], options: FormatOptions) -> None:
    labelmap_txt(classes)


def _write(result: LabeledImage, path: Path, info: ImageInfo, options: FormatOptions) -> None:
    _check_classes(result.classes, options)
    labels = clear_small_regions(result.labels, options.min_area)
    masks = [encode_label_png(labels), encode_label_png(number_regions(labels))]
    _write_zip(path, result.classes, [(_mask_name(info), masks)])


def _merge(outputs: Iterable[ImageOutput], folder: Path, classes: Sequence[str], options: FormatOptions) -> list[Path]:
    paths: list[Path] = []
    rest = iter(outputs)
    while batch := list(islice(rest, _IMAGES_PER_ZIP)):
        paths.append(folder / (f"cvat-{len(paths) + 1}.zip" if paths else "cvat.zip"))
        _write_zip(paths[-1], classes, map(_read_masks, batch))
    return paths


def _read_masks(output: ImageOutput) -> tuple[str, list[bytes]]:
    with output.reading(), zipfile.ZipFile(output.path) as archive:
        return _mask_name(output.info), [archive.read(name) for name in archive.namelist()[: len(_FOLDERS)]]


def _write_zip(path: Path, classes: Sequence[str], images: Iterable[tuple[str, Sequence[bytes]]]) -> None:
    """Write a zip of each image's name and masks."""
    names: list[str] = []
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, masks in images:
            names.append(name)
            for folder, mask in zip(_FOLDERS, masks, strict=True):
                _add(archive, f"{folder}/{name}.png", mask)
        _add(archive, "labelmap.txt", labelmap_txt(classes).encode())
        _add(archive, "ImageSets/Segmentation/default.txt", "".join(f"{name}\n" for name in names).encode())


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Store data without compression and without time and system, so that equal content gives equal bytes."""
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
