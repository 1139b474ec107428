"""Clean label maps: smooth borders, remove small regions, fill holes.

All functions work on integer arrays, with 4-connectivity for classes and 8-connectivity for background: a line one
pixel wide encloses its inside, and a hole ends at corners too.
"""

import numpy as np
import numpy.typing as npt

from cliper.errors import InputError, ShapeError

__all__ = ["clean_labels", "fill_holes", "remove_small_regions", "smooth_borders"]

Labels = npt.NDArray[np.int32]


def clean_labels(labels: npt.ArrayLike, *, min_area: int = 0, fill_holes: bool = False, smooth: int = 0) -> Labels:
    """Smooth borders, then remove small regions, then fill holes; each step only if requested.

    In this order every region of the result has at least ``min_area`` pixels. Without ``smooth`` the function is
    idempotent.

    Args:
        labels: [H, W] integers, 0 is background.
        min_area: see :func:`remove_small_regions`; 0 removes none.
        fill_holes: see :func:`fill_holes`.
        smooth: radius for :func:`smooth_borders`; 0 smooths nothing.

    Returns:
        [H, W] int32, a new array with the labels of the input and 0.

    Raises:
        ShapeError: labels that are not [H, W].
        InputError: labels that are not integers from 0 to 65535, or a number below 0.

    Example:
        >>> clean_labels([[1, 1, 1], [1, 0, 1], [1, 1, 2]], min_area=2, fill_holes=True).tolist()
        [[1, 1, 1], [1, 1, 1], [1, 1, 1]]
    """
    array = _check(labels)
    if smooth := _check_int("smooth", smooth):
        array = smooth_borders(array, smooth)
    if _check_int("min_area", min_area) > 1:
        array = remove_small_regions(array, min_area)
    if fill_holes:
        array = _fill_holes(array)
    return array


def remove_small_regions(labels: npt.ArrayLike, min_area: int) -> Labels:
    """Give each region of fewer pixels than ``min_area`` the label with which it shares the longest border.

    That may be background. On a tie it is the smallest label. A small region that touches only small regions gets its
    label after them. Background is not changed; :func:`fill_holes` fills holes in a class. Where no region is large
    enough and there is no background, all pixels become background.

    Args:
        labels: [H, W] integers, 0 is background.
        min_area: in pixels.

    Returns:
        [H, W] int32: every region of every label but 0 has at least ``min_area`` pixels.

    Raises as :func:`clean_labels`.

    Example:
        >>> remove_small_regions([[1, 1, 2, 0], [1, 1, 1, 0]], 2).tolist()
        [[1, 1, 1, 0], [1, 1, 1, 0]]
    """
    array = _check(labels)
    components, component_labels = _connected_components(array)
    small = (np.bincount(components.ravel()) < _check_int("min_area", min_area)) & (component_labels > 0)
    if not small.any():
        return array
    # For each small region and each adjacent region: how many pixel sides they share.
    count = len(component_labels)
    codes = []
    for here, there in _neighbours():
        a, b = components[here], components[there]
        beside = small[a] & (a != b)
        codes.append(a[beside] * count + b[beside])
    pairs, shared = np.unique(np.concatenate(codes), return_counts=True)
    region, beside = pairs // count, pairs % count

    settled = ~small
    while len(region):
        ready = settled[beside]
        if not ready.any():
            break
        order = np.lexsort((component_labels[beside], region))
        order = order[ready[order]]
        groups = np.flatnonzero(
            np.diff(region[order], prepend=-1) | np.diff(component_labels[beside[order]], prepend=-1)
        )
        votes = np.add.reduceat(shared[order], groups)
        who, what = region[order][groups], component_labels[beside[order]][groups]
        best = np.lexsort((what, -votes, who))
        first = best[np.flatnonzero(np.diff(who[best], prepend=-1))]
        component_labels[who[first]] = what[first]
        settled[who[first]] = True
        rest = ~settled[region]
        region, beside, shared = region[rest], beside[rest], shared[rest]
    component_labels[~settled] = 0
    return component_labels[components]


def fill_holes(labels: npt.ArrayLike) -> Labels:
    """Give background that one class encloses the label of that class.

    A background region at the edge of the image, or adjacent to two classes, does not change.

    Args:
        labels: [H, W] integers, 0 is background.

    Returns:
        [H, W] int32.

    Raises as :func:`clean_labels`.

    Example:
        >>> fill_holes([[3, 3, 3], [3, 0, 3], [3, 3, 3]]).tolist()
        [[3, 3, 3], [3, 3, 3], [3, 3, 3]]
    """
    from scipy import ndimage

    array = _check(labels)
    components, count = ndimage.label(array == 0, structure=np.ones((3, 3)))
    low = np.full(count + 1, 65536)
    high = np.full(count + 1, -1)
    for here, there in _neighbours():
        touching = (components[here] > 0) & (array[there] > 0)
        component, label = components[here][touching], array[there][touching]
        np.minimum.at(low, component, label)
        np.maximum.at(high, component, label)
    inner = low == high
    for edge in (components[0], components[-1], components[:, 0], components[:, -1]):
        inner[edge] = False
    inner[0] = False
    return np.where(inner[components], low[components], array).astype(np.int32)


# For ``clean_labels``, whose argument has the function's name.
_fill_holes = fill_holes


def smooth_borders(labels: npt.ArrayLike, radius: int) -> Labels:
    """Majority filter: give each pixel the most frequent label of the square around it.

    On a tie a pixel keeps its label, else it gets the smallest of the tied labels. At the edge of the image the square
    is cropped.

    Args:
        labels: [H, W] integers, 0 is background.
        radius: in pixels; the square has ``2 * radius + 1`` a side.

    Returns:
        [H, W] int32.

    Raises as :func:`clean_labels`.

    Example:
        >>> smooth_borders([[1, 1, 1], [1, 2, 1], [0, 0, 0]], 1).tolist()
        [[1, 1, 1], [1, 1, 1], [0, 0, 0]]
    """
    array = _check(labels)
    radius = _check_int("smooth", radius)
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
    """[H, W]: how many pixels of the square around each pixel are set."""
    total = inside.astype(np.int32)
    for axis, side in enumerate(inside.shape):
        sums = np.cumsum(np.insert(total, 0, 0, axis=axis), axis=axis, dtype=np.int32)
        positions = np.arange(side)
        after = sums.take(np.minimum(positions + radius + 1, side), axis=axis)
        total = after - sums.take(np.maximum(positions - radius, 0), axis=axis)
    return total


def _connected_components(array: Labels) -> tuple[npt.NDArray[np.int64], Labels]:
    """[H, W] 4-connected components numbered from 0, and each component's label."""
    from scipy import ndimage

    components = np.zeros(array.shape, dtype=np.int64)
    labels: list[int] = []
    for label, box in enumerate(ndimage.find_objects(array + 1)):
        if box is None:
            continue
        inside = array[box] == label
        numbers, count = ndimage.label(inside)
        components[box][inside] = numbers[inside] + (len(labels) - 1)
        labels += [label] * count
    return components, np.array(labels, dtype=np.int32)


def _neighbours() -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Pairs of slices of adjacent pixels: right, left, below, above."""
    whole, late, early = slice(None), slice(1, None), slice(None, -1)
    return [
        ((whole, early), (whole, late)),
        ((whole, late), (whole, early)),
        ((early, whole), (late, whole)),
        ((late, whole), (early, whole)),
    ]


def _check_int(name: str, value: int) -> int:
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
    return array.astype(np.int32)  # a copy: the input is not changed
