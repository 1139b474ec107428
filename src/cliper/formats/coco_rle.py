"""COCO's compressed run-length encoding (RLE) of masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cliper.errors import InputError

__all__ = ["decompress_counts", "encode_coco_rle"]

_MAX_GROUPS = 7  # 35 bits: more than any image has pixels, and far from overflowing int64


def encode_coco_rle(
    mask: npt.NDArray[np.bool_], *, left: int = 0, top: int = 0, size: tuple[int, int] | None = None
) -> dict[str, Any]:
    """A mask as COCO's compressed RLE.

    Args:
        mask: [h, w] bool, the whole image or a box of it that holds all of the mask.
        left: column of the image where the box begins.
        top: row where it begins.
        size: (height, width) of the image; None if the mask covers it.

    Returns:
        ``size``, a list of height and width, and ``counts``, ASCII text.

    Example:
        >>> encode_coco_rle(np.array([[0, 1], [1, 1]], bool))
        {'size': [2, 2], 'counts': '13'}
    """
    height, width = size or mask.shape
    return {"size": [height, width], "counts": _compress(_run_lengths(mask, left, top, height, width))}


def _run_lengths(mask: npt.NDArray[np.bool_], left: int, top: int, height: int, width: int) -> npt.NDArray[np.int64]:
    """[n] int64: lengths of the runs in column order, alternately outside and inside; the first may be 0."""
    framed = np.pad(mask.astype(np.int8), ((1, 1), (0, 0)))
    columns, rows = np.nonzero(np.diff(framed, axis=0).T)
    # For each column in turn: start of a run, its end, start of the next, ...
    edges = (left + columns.astype(np.int64)) * height + top + rows
    # A run that ends at the bottom of a column continues one that starts at the top of the next.
    joined = np.flatnonzero(edges[1:-1:2] == edges[2::2]) * 2 + 1
    edges = np.delete(edges, np.concatenate([joined, joined + 1]))
    counts = np.diff(np.concatenate([[0], edges, [height * width]]))
    return counts[:-1] if len(counts) > 1 and counts[-1] == 0 else counts


def _compress(counts: npt.NDArray[np.int64]) -> str:
    """Run lengths as printable characters.

    From the fourth on, a length is stored as the difference to the last but one. A number is cut into groups of five
    bits, lowest first; a sixth bit of each group says whether more follow, and ``0`` is the character of zero. The
    groups of a number end when the rest is only its sign.
    """
    rest = np.array(counts, dtype=np.int64)
    rest[3:] -= counts[1:-2]
    groups: list[npt.NDArray[np.uint8]] = []
    used: list[npt.NDArray[np.bool_]] = []
    unfinished = np.ones(len(rest), dtype=np.bool_)
    while unfinished.any():
        low = rest & 31
        rest = rest >> 5
        more = unfinished & (rest != np.where(low & 16, -1, 0))
        groups.append((low + np.where(more, 32, 0) + 48).astype(np.uint8))
        used.append(unfinished)
        unfinished = more
    return np.stack(groups, axis=1)[np.stack(used, axis=1)].tobytes().decode("ascii")


def decompress_counts(text: str) -> npt.NDArray[np.int64]:
    """Counts from COCO's compressed text: run lengths in column order. Input is untrusted.

    Raises:
        InputError: a character outside ``0`` to ``o``, a last number that does not end, or a number of more than 35
            bits. Negative counts are returned as they are.

    Example:
        >>> decompress_counts("61X13mN000`0").tolist()
        [6, 1, 40, 4, 5, 4, 5, 4, 21]
    """
    codes = np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.int64) - 48
    if codes.size == 0:
        return codes
    if codes.min() < 0 or codes.max() > 63:
        raise InputError("expected compressed counts of the characters '0' to 'o', got another character")
    ends = np.flatnonzero((codes & 32) == 0)
    if ends.size == 0 or ends[-1] != codes.size - 1:
        raise InputError("expected compressed counts, got a text whose last number does not end")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MAX_GROUPS:
        raise InputError(f"expected compressed counts of at most {5 * _MAX_GROUPS} bits, got a longer number")
    shifts = 5 * (np.arange(codes.size) - np.repeat(starts, lengths))
    values = np.add.reduceat((codes & 31) << shifts, starts)
    values -= np.where(codes[ends] & 16, 1 << (5 * lengths), 0)
    # From the fourth on, a number is the difference to the last but one.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
