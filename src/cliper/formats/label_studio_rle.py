"""Label Studio's run-length encoding (RLE) of brush masks, a stream of bits.

The stream, highest bit first: 32 bits, the number of values; 5 bits, the size of a value less one; four times 4 bits,
the possible sizes of a length, less one; then the records. A record is 1 bit, set for a run; 2 bits, which of the four
sizes its length has; the length less one; and the value, once for a run. The values are those of the pixels in reading
order, four per pixel (red, green, blue, alpha). Zeros fill the last byte.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["encode_brush_rle"]

_SIZES = np.array([3, 4, 8, 16])
_MAX_LENGTH = 1 << 16


def encode_brush_rle(mask: npt.NDArray[np.bool_]) -> list[int]:
    """A mask as Label Studio's list of bytes; all four channels are 255 inside and 0 outside.

    Args:
        mask: [H, W] bool, 1 to 2**30 - 1 pixels.

    Example:
        >>> encode_brush_rle(np.array([[True]]))
        [0, 0, 0, 4, 57, 27, 252, 127, 224]
    """
    flat = mask.ravel()
    ends = np.concatenate([np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]])
    runs = 4 * np.diff(ends, prepend=0)
    # A run longer than a record can be is cut into several, the last of which is the rest.
    pieces = -(-runs // _MAX_LENGTH)
    inside = np.repeat(flat[ends - 1], pieces)
    lengths = np.full(len(inside), _MAX_LENGTH)
    lengths[np.cumsum(pieces) - 1] = runs - (pieces - 1) * _MAX_LENGTH

    size_index = np.searchsorted(1 << _SIZES, lengths)  # the smallest size that holds the length less one
    codes = (((4 + size_index) << _SIZES[size_index]) + lengths - 1 << 8) + np.where(inside, 255, 0)
    widths = 11 + _SIZES[size_index]
    ends = np.cumsum(widths)
    bits = np.zeros(int(ends[-1]), dtype=np.uint8)
    for index, size in enumerate(_SIZES):
        chosen = size_index == index
        positions = np.arange(11 + size)
        bits[(ends - widths)[chosen, None] + positions] = codes[chosen, None] >> positions[::-1] & 1
    header = f"{4 * mask.size:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in _SIZES)
    stream: list[int] = np.packbits(np.concatenate([np.array(list(header), np.uint8), bits])).tolist()
    return stream
