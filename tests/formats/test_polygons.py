"""Polygons of regions: exact, simplified, with holes."""

from __future__ import annotations

import numpy as np
import pytest
from format_helpers import filled
from format_helpers import polygon_area as area
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from cliper.formats.polygons import find_contours, region_polygon, simplify_contour
from cliper.formats.regions import Region, find_regions

untimed = settings(deadline=None)

LABELS = arrays(np.int32, array_shapes(min_dims=2, max_dims=2, max_side=24), elements=st.integers(0, 3))


@untimed
@given(LABELS)
def test_polygons_filled_again_are_the_label_map(labels: np.ndarray) -> None:
    even_odd, winding = np.zeros_like(labels), np.zeros_like(labels)
    for region in find_regions(labels):
        polygon = region_polygon(region)
        assert area(polygon) == region.area  # clockwise, without the holes
        even_odd += region.label * filled(polygon, labels.shape)
        winding += region.label * filled(polygon, labels.shape, winding=True)
    np.testing.assert_array_equal(even_odd, labels)
    np.testing.assert_array_equal(winding, labels)


@untimed
@given(LABELS)
def test_contours_have_no_redundant_corner(labels: np.ndarray) -> None:
    for region in find_regions(labels):
        for contour in find_contours(region.mask):
            sides = np.roll(contour, -1, axis=0) - contour
            assert ((sides == 0).sum(axis=1) == 1).all()
            # Sides along rows and columns alternate.
            assert ((sides[:, 0] == 0) != (np.roll(sides[:, 0], 1) == 0)).all()


@untimed
@given(LABELS, st.floats(0.25, 6))
def test_simplified_contours_stay_within_the_tolerance_and_keep_an_area(labels: np.ndarray, tolerance: float) -> None:
    for region in find_regions(labels):
        for contour in find_contours(region.mask):
            simple = simplify_contour(contour, tolerance)
            assert {tuple(p) for p in simple} <= {tuple(p) for p in contour}
            assert area(simple) != 0
            for corner in contour:
                assert min(distance(corner, a, b) for a, b in zip(simple, np.roll(simple, -1, 0), strict=True)) < (
                    tolerance + 1e-9  # of rounding
                )


def distance(point: np.ndarray, start: np.ndarray, end: np.ndarray) -> float:
    along = (end - start).astype(float)
    share = np.clip((point - start) @ along / (along @ along), 0, 1)
    return float(np.hypot(*(point - start - share * along)))


def test_hole_is_bridged() -> None:
    mask = np.ones((5, 5), bool)
    mask[2, 2] = False
    outer, hole = find_contours(mask)
    assert outer.tolist() == [[0, 0], [5, 0], [5, 5], [0, 5]]
    assert (area(outer), area(hole)) == (25, -1)
    polygon = region_polygon(Region(1, 10, 20, mask))
    assert len(polygon) == 4 + 4 + 2
    assert area(polygon) == 24


def test_simplified_disc_has_few_corners_and_keeps_its_area() -> None:
    y, x = np.mgrid[:101, :101]
    (region,) = find_regions(((x - 50) ** 2 + (y - 50) ** 2 < 45**2).astype(int))
    exact, simple = region_polygon(region), region_polygon(region, 1.0)
    assert len(simple) < len(exact) / 5
    # At most a strip as wide as the tolerance along the border; seen are 1.3 %.
    assert area(simple) == pytest.approx(region.area, rel=0.03)


def test_diagonal_line_does_not_vanish() -> None:
    labels = np.eye(9, dtype=int) + np.eye(9, k=1, dtype=int)
    (region,) = find_regions(labels)
    assert area(region_polygon(region, 50.0)) > 0
