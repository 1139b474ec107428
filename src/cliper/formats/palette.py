"""The colours of labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["hex_colours", "voc_palette"]


def voc_palette(count: int = 256) -> npt.NDArray[np.uint8]:
    """The colour map of PASCAL VOC: label 0 is black, and the first 2**24 labels all differ.

    Bit 3k + c of a label becomes bit 7 - k of its colour's channel c. The benchmark's map ends at 256; the
    same rule continues after it.

    Args:
        count: number of colours.

    Returns:
        [count, 3] uint8, red, green and blue.

    Example:
        >>> voc_palette()[15].tolist()
        [192, 128, 128]
    """
    labels = np.arange(count, dtype=np.int64)
    colours = np.zeros((count, 3), dtype=np.uint8)
    for k in range(8):
        for channel in range(3):
            bit = (labels >> (3 * k + channel)) & 1
            colours[:, channel] |= (bit << (7 - k)).astype(np.uint8)
    return colours


def hex_colours(count: int) -> list[str]:
    """The first colours of :func:`voc_palette` as in HTML.

    Example:
        >>> hex_colours(2)
        ['#000000', '#800000']
    """
    return ["#{:02x}{:02x}{:02x}".format(*colour) for colour in voc_palette(count).tolist()]
