"""Label maps made tidy: borders smoothed, specks removed, holes filled.

These work on arrays of integers. Pixels hang together by their sides where they have a class, and by sides and corners
where they are background: so a line one pixel wide closes off what is inside it, and no hole leaks through a corner.
"""

import numpy as np
import numpy.typing as npt

from cliper.errors import InputError, ShapeError

__all__ = ["clean_labels", "fill_holes", "remove_specks", "smooth_borders"]

Labels = npt.NDArray[np.int32]


def clean_labels(labels: npt.ArrayLike, *, min_area: int = 0, fill_holes: bool = False, smooth: int = 0) -> Labels:
    """Smooth borders, then remove specks, then fill holes; what is not asked for is left out.

    In this order what one step leaves over the next one mends, and every region has ``min_area`` in the end. Without
    ``smooth``, cleaning twice is the same as cleaning once.

    Args:
        labels: [H, W] integers, 0 is background.
        min_area: see :func:`remove_specks`; 0 removes none.
        fill_holes: see :func:`fill_holes`.
        smooth: radius for :func:`smooth_borders`; 0 smooths nothing.

    Returns:
        [H, W] int32, a new array; no label that was not there before, other than 0.

    Raises:
        ShapeError: labels that are not [H, W].
        InputError: labels that are not integers from 0 to 65535, or a number below 0.

    Example:
        >>> clean_labels([[1, 1, 1], [1, 0, 1], [1, 1, 2]], min_area=2, fill_holes=True).tolist()
        [[1, 1, 1], [1, 1, 1], [1, 1, 1]]
    """
    array = _check(labels)
    if smooth := _whole("smooth", smooth):
        array = smooth_borders(array, smooth)
    if _whole("min_area", min_area) > 1:
        array = remove_specks(array, min_area)
    if fill_holes:
        array = _fill_holes(array)
    return array


def remove_specks(labels: npt.ArrayLike, min_area: int) -> Labels:
    """Regions of fewer pixels than ``min_area`` take the label that they have most border with.

    That may be background. Of equals it is the smallest label. A speck that touches only other specks waits until
    those have their label. Background is not removed: what is inside a class is :func:`fill_holes`'s. Where no region
    is large enough and there is no background, all becomes background.

    Args:
        labels: [H, W] integers, 0 is background.
        min_area: in pixels.

    Returns:
        [H, W] int32: every region of every label but 0 has at least ``min_area`` pixels.

    Raises:
        ShapeError: labels that are not [H, W].
        InputError: labels that are not integers from 0 to 65535, or a number below 0.

    Example:
        >>> remove_specks([[1, 1, 2, 0], [1, 1, 1, 0]], 2).tolist()
        [[1, 1, 1, 0], [1, 1, 1, 0]]
    """
    array = _check(labels)
    pieces, of_piece = _pieces(array)
    small = (np.bincount(pieces.ravel()) < _whole("min_area", min_area)) & (of_piece > 0)
    if not small.any():
        return array
    # Of each speck and each piece beside it: how many sides they share.
    count = len(of_piece)
    codes = []
    for here, there in _neighbours():
        a, b = pieces[here], pieces[there]
        beside = small[a] & (a != b)
        codes.append(a[beside] * count + b[beside])
    pairs, shared = np.unique(np.concatenate(codes), return_counts=True)
    speck, beside = pairs // count, pairs % count

    settled = ~small
    while len(speck):
        ready = settled[beside]
        if not ready.any():
            break
        order = np.lexsort((of_piece[beside], speck))
        order = order[ready[order]]
        groups = np.flatnonzero(np.diff(speck[order], prepend=-1) | np.diff(of_piece[beside[order]], prepend=-1))
        votes = np.add.reduceat(shared[order], groups)
        who, what = speck[order][groups], of_piece[beside[order]][groups]
        best = np.lexsort((what, -votes, who))
        first = best[np.flatnonzero(np.diff(who[best], prepend=-1))]
        of_piece[who[first]] = what[first]
        settled[who[first]] = True
        rest = ~settled[speck]
        speck, beside, shared = speck[rest], beside[rest], shared[rest]
    of_piece[~settled] = 0
    return of_piece[pieces]


def fill_holes(labels: npt.ArrayLike) -> Labels:
    """Background that one class encloses becomes that class.

    A piece of background that reaches the picture's edge, or that touches two classes, stays.

    Args:
        labels: [H, W] integers, 0 is background.

    Returns:
        [H, W] int32.

    Raises:
        ShapeError: labels that are not [H, W].
        InputError: labels that are not integers from 0 to 65535.

    Example:
        >>> fill_holes([[3, 3, 3], [3, 0, 3], [3, 3, 3]]).tolist()
        [[3, 3, 3], [3, 3, 3], [3, 3, 3]]
    """
    from scipy import ndimage

    array = _check(labels)
    pieces, count = ndimage.label(array == 0, structure=np.ones((3, 3)))
    low = np.full(count + 1, 65536)
    high = np.full(count + 1, -1)
    for here, there in _neighbours():
        touching = (pieces[here] > 0) & (array[there] > 0)
        piece, label = pieces[here][touching], array[there][touching]
        np.minimum.at(low, piece, label)
        np.maximum.at(high, piece, label)
    inner = low == high
    for edge in (pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]):
        inner[edge] = False
    inner[0] = False
    return np.where(inner[pieces], low[pieces], array).astype(np.int32)


# For ``clean_labels``, whose argument has the function's name.
_fill_holes = fill_holes


def smooth_borders(labels: npt.ArrayLike, radius: int) -> Labels:
    """Each pixel takes the label that most pixels of the square around it have.

    A pixel keeps its label if no other has more; of others with as many it takes the smallest. At the picture's edge
    the square is cut off.

    Args:
        labels: [H, W] integers, 0 is background.
        radius: in pixels; the square has ``2 * radius + 1`` a side.

    Returns:
        [H, W] int32.

    Raises:
        ShapeError: labels that are not [H, W].
        InputError: labels that are not integers from 0 to 65535, or a radius below 0.

    Example:
        >>> smooth_borders([[1, 1, 1], [1, 2, 1], [0, 0, 0]], 1).tolist()
        [[1, 1, 1], [1, 1, 1], [0, 0, 0]]
    """
    array = _check(labels)
    radius = _whole("smooth", radius)
    present = np.unique(array)
    own = np.zeros(array.shape, dtype=np.int32)
    most, winner = np.zeros_like(own), np.zeros_like(own)
    for label in present:
        inside = array == label
        count = _box_sum(inside, radius)
        own[inside] = count[inside]
        better = count > most
        most[better], winner[better] = count[better], label
    return np.where(own == most, array, winner)


def _box_sum(inside: npt.NDArray[np.bool_], radius: int) -> npt.NDArray[np.int32]:
    """[H, W]: how many pixels of the square around each are inside."""
    total = inside.astype(np.int32)
    for axis, side in enumerate(inside.shape):
        sums = np.cumsum(np.insert(total, 0, 0, axis=axis), axis=axis, dtype=np.int32)
        places = np.arange(side)
        after = sums.take(np.minimum(places + radius + 1, side), axis=axis)
        total = after - sums.take(np.maximum(places - radius, 0), axis=axis)
    return total


def _pieces(array: Labels) -> tuple[npt.NDArray[np.int64], Labels]:
    """[H, W] numbers from 0 of pieces that hang together by their sides, and each piece's label."""
    from scipy import ndimage

    pieces = np.zeros(array.shape, dtype=np.int64)
    labels: list[int] = []
    for label, box in enumerate(ndimage.find_objects(array + 1)):
        if box is None:
            continue
        inside = array[box] == label
        numbers, count = ndimage.label(inside)
        pieces[box][inside] = numbers[inside] + (len(labels) - 1)
        labels += [label] * count
    return pieces, np.array(labels, dtype=np.int32)


def _neighbours() -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Pairs of windows so that a pixel in one lies beside the same pixel of the other: right, left, below, above."""
    whole, late, early = slice(None), slice(1, None), slice(None, -1)
    return [
        ((whole, early), (whole, late)),
        ((whole, late), (whole, early)),
        ((early, whole), (late, whole)),
        ((late, whole), (early, whole)),
    ]


def _whole(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise InputError(f"{name}: expected a whole number of pixels from 0 on, got {value!r}")
    return int(value)


def _check(labels: npt.ArrayLike) -> Labels:
    array = np.asarray(labels)
    if array.ndim != 2 or array.size == 0:
        raise ShapeError(f"expected labels [H, W] with at least one pixel, got shape {list(array.shape)}")
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"expected integer labels, got {array.dtype}; convert them first")
    if array.min() < 0 or array.max() > 65535:
        raise InputError(f"expected labels from 0 to 65535, got {array.min()} to {array.max()}; renumber them first")
    return array.astype(np.int32)  # a copy: what is given stays as it is
