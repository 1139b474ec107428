"""Regions of a label map: all pixels of a class, or its 4-connected components."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cliper.formats.label_png import check_labels

__all__ = ["Region", "class_regions", "find_regions"]


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


def find_regions(labels: npt.ArrayLike) -> Iterator[Region]:
    """The connected components of each label but 0, by label, then by their first pixel in reading order.

    Pixels are connected by their sides (4-connectivity). Argument and errors are those of :func:`class_regions`.

    Example:
        >>> [(region.label, region.box) for region in find_regions([[1, 0, 2], [1, 1, 0]])]
        [(1, (0, 0, 2, 2)), (2, (2, 0, 1, 1))]
    """
    from scipy import ndimage

    for whole in class_regions(labels):
        components, _ = ndimage.label(whole.mask)
        for number, box in enumerate(ndimage.find_objects(components), start=1):
            left, top = whole.left + box[1].start, whole.top + box[0].start
            yield Region(whole.label, left, top, components[box] == number)
