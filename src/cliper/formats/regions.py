"""Regions of a label map: all pixels of a class, or its 4-connected components."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cliper.errors import InputError
from cliper.formats.label_png import check_labels

__all__ = ["DEFAULT_MIN_AREA", "Region", "class_regions", "clear_small_regions", "find_regions", "min_pixels"]

DEFAULT_MIN_AREA = "0.01%"
"""Smallest region in formats of polygons, boxes and objects, where an annotator would have to delete each speck."""


@dataclass(frozen=True, eq=False)
class Region:
    """Pixels of one label, as a mask inside their bounding box.

    Args:
        label: from 1.
        left: first column of the box.
        top: first row of the box.
        mask: [h, w] bool, the pixels inside the box.
    """

    label: int
    left: int
    top: int
    mask: npt.NDArray[np.bool_]

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(np.count_nonzero(self.mask))

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, width and height in pixels."""
        height, width = self.mask.shape
        return self.left, self.top, width, height


def class_regions(labels: npt.ArrayLike) -> Iterator[Region]:
    """All pixels of each label that occurs, but not of label 0, in order of labels.

    Args:
        labels: [H, W] integers from 0 to 65535.

    Raises:
        ShapeError: not two-dimensional, or without a pixel.
        InputError: not integers, or out of range.

    Example:
        >>> [(region.label, region.box, region.area) for region in class_regions([[1, 0, 1], [0, 2, 0]])]
        [(1, (0, 0, 3, 1), 2), (2, (1, 1, 1, 1), 1)]
    """
    from scipy import ndimage

    array = check_labels(labels).astype(np.int32, copy=False)
    for label, box in enumerate(ndimage.find_objects(array), start=1):
        if box is not None:
            yield Region(label, box[1].start, box[0].start, array[box] == label)


def find_regions(labels: npt.ArrayLike, min_area: int | str = 0) -> Iterator[Region]:
    """The connected components of each label but 0, by label, then by their first pixel in reading order.

    Pixels are connected by their sides (4-connectivity). Errors are those of :func:`class_regions`.

    Args:
        labels: [H, W] integers from 0 to 65535.
        min_area: components of fewer pixels are left out; see :func:`min_pixels`.

    Example:
        >>> [(region.label, region.box) for region in find_regions([[1, 0, 2], [1, 1, 0]])]
        [(1, (0, 0, 2, 2)), (2, (2, 0, 1, 1))]
    """
    from scipy import ndimage

    least = min_pixels(min_area, np.shape(labels))
    for whole in class_regions(labels):
        components, _ = ndimage.label(whole.mask)
        areas = np.bincount(components.ravel())
        for number, box in enumerate(ndimage.find_objects(components), start=1):
            if areas[number] < least:
                continue
            left, top = whole.left + box[1].start, whole.top + box[0].start
            yield Region(whole.label, left, top, components[box] == number)


def clear_small_regions(labels: npt.NDArray[np.int32], min_area: int | str) -> npt.NDArray[np.int32]:
    """[H, W] labels in which the components of fewer pixels than :func:`min_pixels` are background.

    Example:
        >>> clear_small_regions(np.array([[1, 1, 0, 2]]), 2).tolist()
        [[1, 1, 0, 0]]
    """
    kept = np.zeros_like(labels)
    for region in find_regions(labels, min_area):
        left, top, width, height = region.box
        kept[top : top + height, left : left + width][region.mask] = region.label
    return kept


def min_pixels(area: int | str, shape: tuple[int, ...]) -> int:
    """A number of pixels, or a share of an image such as ``"0.01%"``, as pixels of the image, rounded up.

    Args:
        area: the number, 0 or more, or the share, 0 to 100 %; both also as text.
        shape: (height, width) of the image.

    Raises:
        InputError: neither a number of pixels nor a share.

    Example:
        >>> min_pixels("0.01%", (480, 640)), min_pixels(200, (480, 640))
        (31, 200)
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?)\s*%|([0-9]+)", str(area).strip(), re.ASCII)
    share = float(match[1]) if match and match[1] else 0.0
    if match is None or share > 100 or isinstance(area, bool):
        raise InputError(f"min_area: expected pixels or a share such as {DEFAULT_MIN_AREA}, got {area!r}")
    return int(match[2]) if match[2] else math.ceil(share / 100 * math.prod(shape))
