"""The colours of labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["hex_colours", "overlay_palette", "voc_palette"]

# Okabe and Ito's colours, which colour-blind people tell apart, in the order of the page's colours.js.
_BRIGHT = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
    (150, 90, 210),
)


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


def overlay_palette(count: int) -> npt.NDArray[np.uint8]:
    """Bright colours for people to look at: label 0 is black, then eight colours, lighter ones, darker ones, and again.

    Args:
        count: number of colours.

    Returns:
        [count, 3] uint8, red, green and blue.

    Example:
        >>> overlay_palette(3).tolist()
        [[0, 0, 0], [230, 159, 0], [86, 180, 233]]
    """
    colours = np.zeros((count, 3), dtype=np.uint8)
    for label in range(1, count):
        base = np.array(_BRIGHT[(label - 1) % len(_BRIGHT)], dtype=np.float64)
        shade = (label - 1) // len(_BRIGHT) % 3
        mixed = (base, base + (255 - base) * 0.45, base * 0.6)[shade]
        colours[label] = np.floor(mixed + 0.5)
    return colours


def hex_colours(count: int) -> list[str]:
    """The first colours of :func:`overlay_palette` as in HTML.

    Example:
        >>> hex_colours(2)
        ['#000000', '#e69f00']
    """
    return ["#{:02x}{:02x}{:02x}".format(*colour) for colour in overlay_palette(count).tolist()]
