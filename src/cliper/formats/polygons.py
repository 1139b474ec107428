"""Regions as polygons: borders along the sides of pixels, simplified, holes bridged to the outer border.

The corner (0, 0) is the top left of the image, (1, 1) the bottom right of its first pixel. Without simplification the
centre of a pixel lies inside a polygon, by the even-odd rule and by the winding rule, exactly if the pixel belongs to
the region.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cliper.formats.regions import Region

__all__ = ["bridge_holes", "find_contours", "region_polygon", "simplify_contour"]

Contour = npt.NDArray[np.int64]

# Smaller tolerances change next to nothing: steps of a border are a whole pixel.
_MIN_TOLERANCE = 0.25


def region_polygon(region: Region, tolerance: float = 0.0) -> Contour:
    """The border of a region as one polygon; bridges without width connect holes to the outer border.

    Args:
        region: 4-connected.
        tolerance: largest distance of the simplified border from the exact one, in pixels.

    Returns:
        [n, 2] int64, x and y of the corners in the image; the first is not repeated at the end.

    Example:
        >>> region_polygon(Region(1, 5, 2, np.array([[1, 1, 1]], bool))).tolist()
        [[5, 2], [8, 2], [8, 3], [5, 3]]
    """
    outer, *holes = (simplify_contour(contour, tolerance) for contour in find_contours(region.mask))
    polygon: Contour = bridge_holes(outer, holes) + np.array([region.left, region.top])
    return polygon


def find_contours(mask: npt.NDArray[np.bool_]) -> list[Contour]:
    """The borders of a 4-connected mask.

    Args:
        mask: [h, w] bool.

    Returns:
        The outer border, clockwise on the screen, then that of each hole, counterclockwise; each [n, 2] of x and y,
        with horizontal and vertical sides in turn. Where two pixels only touch at a corner, borders pass between them.
    """
    framed = np.pad(mask, 1)
    above_left, above_right = framed[:-1, :-1], framed[:-1, 1:]
    left, right = framed[1:, :-1], framed[1:, 1:]
    crossing = (above_left == right) & (above_right == left) & (above_left != above_right)
    turning = above_left ^ above_right ^ left ^ right
    rows, columns = np.nonzero(turning | crossing)
    # Two borders pass a crossing, so it becomes two corners. Along its row, the first of them ends a side and the
    # second starts one; along its column likewise if the region is above left and below right, else in reverse.
    copies = 1 + crossing[rows, columns]
    rows, columns = np.repeat(rows, copies), np.repeat(columns, copies)
    second = np.zeros(len(rows), dtype=np.int64)
    second[1:] = (rows[1:] == rows[:-1]) & (columns[1:] == columns[:-1])
    copy = np.where(above_left[rows, columns], second, 1 - second)
    # Along a row, corners 0 and 1, 2 and 3, ... are the ends of a side. Along a column likewise.
    down = np.lexsort((copy, rows, columns))
    across = np.empty(len(rows), dtype=np.int64)
    across[down[0::2]], across[down[1::2]] = down[1::2], down[0::2]
    partner = across.tolist()

    contours: list[Contour] = []
    visited = bytearray(len(partner))
    corners = np.stack([columns, rows], axis=1)
    for start in range(0, len(partner), 2):
        if visited[start]:
            continue
        path, corner = [], start
        while not visited[corner]:
            path += [corner, corner ^ 1]
            visited[corner] = visited[corner ^ 1] = 1
            corner = partner[corner ^ 1]
        # From its first corner in reading order each path goes right, which is clockwise for the outer border only.
        contours.append(corners[path][::-1] if contours else corners[path])
    return contours


def simplify_contour(contour: Contour, tolerance: float) -> Contour:
    """The contour with fewer corners, none of those left out farther away than the tolerance (Douglas-Peucker).

    A contour that would lose its area is simplified less.

    Args:
        contour: [n, 2] corners.
        tolerance: in pixels.

    Example:
        >>> stairs = np.array([[0, 0], [2, 0], [2, 1], [3, 1], [3, 2], [4, 2], [4, 4], [0, 4]])
        >>> simplify_contour(stairs, 0.8).tolist()
        [[0, 0], [2, 0], [4, 2], [4, 4], [0, 4]]
    """
    while tolerance >= _MIN_TOLERANCE:
        simple = contour[_douglas_peucker(contour, tolerance)]
        x, y = simple.T
        if len(simple) > 2 and x @ np.roll(y, -1) != y @ np.roll(x, -1):
            return simple
        tolerance /= 2
    return contour


def bridge_holes(outer: Contour, holes: list[Contour]) -> Contour:
    """One contour of an outer border and its holes: a bridge leads to each hole and back the same way.

    Args:
        outer: [n, 2] corners.
        holes: [m, 2] corners each, in the other direction.
    """
    bridges: dict[int, list[Contour]] = {}
    for hole in holes:
        distance = np.square(outer - hole[0]).sum(axis=1)
        bridges.setdefault(int(distance.argmin()), []).append(hole)
    pieces, begin = [], 0
    for index, near in sorted(bridges.items()):
        pieces.append(outer[begin : index + 1])
        for hole in near:
            pieces += [hole, hole[:1], outer[index : index + 1]]
        begin = index + 1
    return np.concatenate([*pieces, outer[begin:]])


def _douglas_peucker(contour: Contour, tolerance: float) -> npt.NDArray[np.bool_]:
    """[n] bool, the corners to keep: the first, the farthest from it, and recursively those too far from a line."""
    keep = np.zeros(len(contour), dtype=np.bool_)
    middle = int(np.square(contour - contour[0]).sum(axis=1).argmax())
    keep[[0, middle]] = True
    closed = np.concatenate([contour, contour[:1]]).astype(np.float64)
    spans = [(0, middle), (middle, len(contour))]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        distance = _distance(closed[first + 1 : last], closed[first], closed[last])
        farthest = int(distance.argmax())
        if distance[farthest] > tolerance:
            split = first + 1 + farthest
            keep[split] = True
            spans += [(first, split), (split, last)]
    return keep


def _distance(
    points: npt.NDArray[np.float64], start: npt.NDArray[np.float64], end: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """[n] distances of points to a line segment."""
    along = end - start
    length = float(along @ along)
    share = np.clip((points - start) @ along / length, 0, 1) if length else np.zeros(len(points))
    off = points - start - share[:, None] * along
    distances: npt.NDArray[np.float64] = np.sqrt(np.square(off).sum(axis=1))
    return distances
