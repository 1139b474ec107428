"""The connected pieces of a label map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cliper.formats.label_png import check_labels

__all__ = ["Region", "find_regions"]


@dataclass(frozen=True, eq=False)
class Region:
    """Pixels of one label that hang together by their sides.

    Args:
        label: from 1.
        left: column of the box around it.
        top: row of that box.
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
        """Left, top, width and height."""
        height, width = self.mask.shape
        return self.left, self.top, width, height


def find_regions(labels: npt.ArrayLike) -> Iterator[Region]:
    """Every region of every label but 0: by label, then by the first pixel in reading order.

    Pixels that only touch at a corner do not hang together.

    Args:
        labels: [H, W] integers from 0 to 65535.

    Raises:
        ShapeError: not two-dimensional, or without a pixel.
        InputError: not integers, or out of range.

    Example:
        >>> [(region.label, region.box) for region in find_regions([[1, 0, 2], [1, 1, 0]])]
        [(1, (0, 0, 2, 2)), (2, (2, 0, 1, 1))]
    """
    from scipy import ndimage

    array = check_labels(labels).astype(np.int32, copy=False)
    for label, box in enumerate(ndimage.find_objects(array), start=1):
        if box is None:
            continue
        pieces, _ = ndimage.label(array[box] == label)
        for number, inner in enumerate(ndimage.find_objects(pieces), start=1):
            top, left = box[0].start + inner[0].start, box[1].start + inner[1].start
            yield Region(label, left, top, pieces[inner] == number)
