"""Masks as run lengths: those of COCO, as numbers and as text."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cliper.errors import InputError, ShapeError

__all__ = ["compress_counts", "decompress_counts", "mask_counts"]

_MAX_GROUPS = 7  # 35 bits: more than any image has pixels, and far from overflowing int64


def mask_counts(
    mask: npt.NDArray[np.bool_], *, left: int = 0, top: int = 0, size: tuple[int, int] | None = None
) -> npt.NDArray[np.int64]:
    """Lengths of the runs of a mask, column by column, first one of pixels outside: COCO's uncompressed counts.

    Args:
        mask: [h, w] bool, the picture or a part of it that holds all of the mask.
        left: column of the picture where the part begins.
        top: row where it begins.
        size: (height, width) of the picture; None where the part is the whole.

    Returns:
        [n] int64, alternately outside and inside, their sum the number of pixels; the first may be 0.

    Raises:
        ShapeError: a mask that is not [h, w], or a part that does not lie inside the picture.

    Example:
        >>> mask_counts(np.array([[0, 1], [1, 1]], bool)).tolist()
        [1, 3]
    """
    if mask.ndim != 2:
        raise ShapeError(f"expected a mask [h, w], got shape {list(mask.shape)}")
    height, width = size or mask.shape
    if not (0 <= top <= height - mask.shape[0] and 0 <= left <= width - mask.shape[1]):
        raise ShapeError(
            f"expected a output inside a picture of {height}x{width}, got {mask.shape[0]}x{mask.shape[1]} at "
            f"row {top}, column {left}"
        )
    framed = np.pad(mask.astype(np.int8), ((1, 1), (0, 0)))
    columns, rows = np.nonzero(np.diff(framed, axis=0).T)
    # Of each column in turn: where a run begins, where it ends, ...
    edges = (left + columns.astype(np.int64)) * height + top + rows
    # A run that ends at the foot of a column and one that begins at the head of the next are one.
    joined = np.flatnonzero(edges[1:-1:2] == edges[2::2]) * 2 + 1
    edges = np.delete(edges, np.concatenate([joined, joined + 1]))
    counts = np.diff(np.concatenate([[0], edges, [height * width]]))
    return counts[:-1] if len(counts) > 1 and counts[-1] == 0 else counts


def compress_counts(counts: npt.NDArray[np.int64]) -> str:
    """Counts as COCO's compressed text.

    From the fourth on, a count is stored as its difference to the last but one; then in groups of five bits, lowest
    first, each group with a sixth bit that says whether more follow, as a printable character from ``0`` on. The
    groups of a number end where the rest is but its sign.

    Example:
        >>> compress_counts(np.array([6, 1, 40, 4, 5, 4, 5, 4, 21]))
        '61X13mN000`0'
    """
    rest = np.array(counts, dtype=np.int64)
    rest[3:] -= counts[1:-2]
    groups: list[npt.NDArray[np.uint8]] = []
    used: list[npt.NDArray[np.bool_]] = []
    alive = np.ones(len(rest), dtype=np.bool_)
    while alive.any():
        low = rest & 31
        rest = rest >> 5
        more = alive & (rest != np.where(low & 16, -1, 0))
        groups.append((low + np.where(more, 32, 0) + 48).astype(np.uint8))
        used.append(alive)
        alive = more
    return np.stack(groups, axis=1)[np.stack(used, axis=1)].tobytes().decode("ascii")


def decompress_counts(text: str) -> npt.NDArray[np.int64]:
    """Counts from COCO's compressed text: the inverse of :func:`compress_counts`. Input is untrusted.

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
