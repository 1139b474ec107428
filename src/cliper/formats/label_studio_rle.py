"""Masks as Label Studio's brush strokes: runs of bytes, packed bit by bit.

The stream, max_label bit first: 32 bits, the number of values; 5 bits, the size of a value less one; four times 4 bits,
the sizes that a length may have, less one; then record after record. A record is 1 bit, whether it is a run; 2 bits,
which of the four sizes its length has; the length less one; and its value, once for a run. The values are those of the
picture's pixels in reading order, four for each (red, green, blue, alpha). At the end it is filled up to a whole byte.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cliper.errors import ShapeError

__all__ = ["encode_brush_rle"]

_SIZES = np.array([3, 4, 8, 16])
_MAX_LENGTH = 1 << 16


def encode_brush_rle(mask: npt.NDArray[np.bool_]) -> list[int]:
    """A mask as Label Studio's list of bytes; all four channels are 255 inside and 0 outside.

    Args:
        mask: [H, W] bool.

    Raises:
        ShapeError: not [H, W], without a pixel, or with more values than the stream can say.

    Example:
        >>> encode_brush_rle(np.array([[True]]))
        [0, 0, 0, 4, 57, 27, 252, 127, 224]
    """
    if mask.ndim != 2 or not 0 < 4 * mask.size < 1 << 32:
        raise ShapeError(f"expected a mask [H, W] of 1 to 2**30 pixels, got shape {list(mask.shape)}")
    flat = mask.ravel()
    ends = np.concatenate([np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]])
    lengths = 4 * np.diff(ends, prepend=0)
    inside = flat[ends - 1]
    pieces = -(-lengths // _MAX_LENGTH)
    last = np.cumsum(pieces) - 1
    inside = np.repeat(inside, pieces)
    remainders = lengths - (pieces - 1) * _MAX_LENGTH
    lengths = np.full(len(inside), _MAX_LENGTH)
    lengths[last] = remainders

    which = np.searchsorted(1 << _SIZES, lengths)  # the smallest size that holds the length less one
    codes = (((4 + which) << _SIZES[which]) + lengths - 1 << 8) + np.where(inside, 255, 0)
    widths = 11 + _SIZES[which]
    ends = np.cumsum(widths)
    bits = np.zeros(int(ends[-1]), dtype=np.uint8)
    for number, size in enumerate(_SIZES):
        chosen = which == number
        places = np.arange(11 + size)
        bits[(ends - widths)[chosen, None] + places] = codes[chosen, None] >> places[::-1] & 1
    header = [4 * mask.size >> place & 1 for place in range(31, -1, -1)]
    for value, width in ((7, 5), *((int(size) - 1, 4) for size in _SIZES)):
        header += [value >> place & 1 for place in range(width - 1, -1, -1)]
    packed: list[int] = np.packbits(np.concatenate([np.array(header, np.uint8), bits])).tolist()
    return packed
