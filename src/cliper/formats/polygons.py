"""Regions as polygons: borders along the sides of pixels, simplified, holes joined to the outside.

The corner (0, 0) is the top left of the picture, (1, 1) the bottom right of its first pixel. Without simplification
the centre of a pixel lies inside a polygon, by the even-odd rule and by the winding rule, exactly if the pixel is in
the region.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cliper.formats.regions import Region

__all__ = ["bridge_holes", "find_contours", "region_polygon", "simplify_contour"]

Contour = npt.NDArray[np.int64]

# Below it simplifying changes nothing that matters: steps of a border are a whole pixel.
_MIN_TOLERANCE = 0.25


def region_polygon(region: Region, tolerance: float = 0.0) -> Contour:
    """The region's border as one polygon; holes are joined to the outside by bridges without width.

    Args:
        region: what to trace.
        tolerance: how far a simplified border may be from the exact one, in pixels.

    Returns:
        [n, 2] int64, x and y of the corners, in the picture; the first is not repeated at the end.

    Example:
        >>> region_polygon(Region(1, 5, 2, np.array([[1, 1, 1]], bool))).tolist()
        [[5, 2], [8, 2], [8, 3], [5, 3]]
    """
    outer, *holes = (simplify_contour(ring, tolerance) for ring in find_contours(region.mask))
    polygon: Contour = bridge_holes(outer, holes) + np.array([region.left, region.top])
    return polygon


def find_contours(mask: npt.NDArray[np.bool_]) -> list[Contour]:
    """The borders of a mask whose pixels hang together by their sides.

    Args:
        mask: [h, w] bool, one region.

    Returns:
        The outer border, clockwise as one sees it, then each hole's, the other way round; [n, 2] of x and y,
        horizontal and vertical sides in turn. Where two pixels meet at a corner only, borders pass between them.
    """
    framed = np.pad(mask, 1)
    above_left, above_right = framed[:-1, :-1], framed[:-1, 1:]
    left, right = framed[1:, :-1], framed[1:, 1:]
    crossing = (above_left == right) & (above_right == left) & (above_left != above_right)
    turning = above_left ^ above_right ^ left ^ right
    rows, columns = np.nonzero(turning | crossing)
    twice = crossing[rows, columns]
    # Two borders pass a crossing: it is there twice. In the row, the first copy ends a side and the second begins
    # one; in the column this is so if the region is above left and below right, and otherwise the reverse.
    rows, columns = np.repeat(rows, 1 + twice), np.repeat(columns, 1 + twice)
    second = np.zeros(len(rows), dtype=np.int64)
    second[1:] = (rows[1:] == rows[:-1]) & (columns[1:] == columns[:-1])
    copy = np.where(above_left[rows, columns], second, 1 - second)
    # Along a row, corners belong together in pairs: 0 and 1, 2 and 3, ... Along a column likewise.
    down = np.lexsort((copy, rows, columns))
    across = np.empty(len(rows), dtype=np.int64)
    across[down[0::2]], across[down[1::2]] = down[1::2], down[0::2]
    partner = across.tolist()

    rings: list[Contour] = []
    seen = bytearray(len(partner))
    corners = np.stack([columns, rows], axis=1)
    for start in range(0, len(partner), 2):
        if seen[start]:
            continue
        path, place = [], start
        while not seen[place]:
            path += [place, place ^ 1]
            seen[place] = seen[place ^ 1] = 1
            place = partner[place ^ 1]
        ring = corners[path]
        # From its first corner in reading order every ring is walked to the right.
        rings.append(ring if not rings else ring[::-1])
    return rings


def simplify_contour(ring: Contour, tolerance: float) -> Contour:
    """The ring with fewer corners, none of those left out farther than the tolerance (Douglas and Peucker).

    A ring that would lose its area is simplified less.

    Args:
        ring: [n, 2] corners.
        tolerance: in pixels.

    Example:
        >>> stairs = np.array([[0, 0], [2, 0], [2, 1], [3, 1], [3, 2], [4, 2], [4, 4], [0, 4]])
        >>> simplify_contour(stairs, 0.8).tolist()
        [[0, 0], [2, 0], [4, 2], [4, 4], [0, 4]]
    """
    while tolerance >= _MIN_TOLERANCE:
        simple = ring[_kept(ring, tolerance)]
        if len(simple) > 2 and _twice_area(simple):
            return simple
        tolerance /= 2
    return ring


def bridge_holes(outer: Contour, holes: list[Contour]) -> Contour:
    """One ring for an outer border and its holes: a bridge leads to each hole and the same way back.

    Args:
        outer: [n, 2] corners.
        holes: [m, 2] corners each, walked the other way round.
    """
    if not holes:
        return outer
    branches: dict[int, list[Contour]] = {}
    for hole in holes:
        away = np.square(outer - hole[0]).sum(axis=1)
        branches.setdefault(int(away.argmin()), []).append(hole)
    pieces = []
    for place, corner in enumerate(outer):
        pieces.append(corner[None])
        for hole in branches.get(place, ()):
            pieces += [hole, hole[:1], corner[None]]
    return np.concatenate(pieces)


def _kept(ring: Contour, tolerance: float) -> npt.NDArray[np.bool_]:
    """Which corners stay: the first, the one farthest from it, and by halves what is too far from the line."""
    kept = np.zeros(len(ring), dtype=np.bool_)
    middle = int(np.square(ring - ring[0]).sum(axis=1).argmax())
    kept[[0, middle]] = True
    closed = np.concatenate([ring, ring[:1]]).astype(np.float64)
    todo = [(0, middle), (middle, len(ring))]
    while todo:
        first, last = todo.pop()
        if last - first < 2:
            continue
        away = _distance(closed[first + 1 : last], closed[first], closed[last])
        farthest = int(away.argmax())
        if away[farthest] > tolerance:
            split = first + 1 + farthest
            kept[split] = True
            todo += [(first, split), (split, last)]
    return kept


def _distance(
    points: npt.NDArray[np.float64], start: npt.NDArray[np.float64], end: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Of each point to the line between two others, ends included."""
    along = end - start
    length = float(along @ along)
    share = np.clip((points - start) @ along / length, 0, 1) if length else np.zeros(len(points))
    off = points - start - share[:, None] * along
    distances: npt.NDArray[np.float64] = np.sqrt(np.square(off).sum(axis=1))
    return distances


def _twice_area(ring: Contour) -> int:
    x, y = ring[:, 0], ring[:, 1]
    return int(x @ np.roll(y, -1) - y @ np.roll(x, -1))
