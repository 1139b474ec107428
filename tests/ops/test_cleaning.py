"""Cleaning: laws that hold for any label map, and what a person expects of small ones."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from cliper.errors import InputError, ShapeError
from cliper.ops import clean_labels
from cliper.ops.cleaning import fill_holes, remove_small_regions, smooth_borders

untimed = settings(deadline=None)

LABELS = arrays(np.int32, array_shapes(min_dims=2, max_dims=2, max_side=14), elements=st.sampled_from([0, 0, 1, 2, 7]))
AREAS = st.integers(0, 30)

SIDES = [(0, 1), (1, 0), (0, -1), (-1, 0)]
ALL_ROUND = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x]


def pieces(labels: np.ndarray, steps: list[tuple[int, int]]) -> list[set[tuple[int, int]]]:
    """Pixels of one label that hang together, found by walking from pixel to pixel."""
    left = set(np.ndindex(labels.shape))
    found = []
    while left:
        start = min(left)
        left.remove(start)
        piece, todo = {start}, deque([start])
        while todo:
            y, x = todo.popleft()
            for dy, dx in steps:
                other = (y + dy, x + dx)
                if other in left and labels[other] == labels[start]:
                    left.remove(other)
                    piece.add(other)
                    todo.append(other)
        found.append(piece)
    return found


def around(piece: set[tuple[int, int]], labels: np.ndarray) -> list[int]:
    """Labels beside a piece, one for each side shared."""
    beside = [(y + dy, x + dx) for y, x in sorted(piece) for dy, dx in SIDES]
    inside = [place for place in beside if all(0 <= p < s for p, s in zip(place, labels.shape, strict=True))]
    return [int(labels[place]) for place in inside if place not in piece]


@untimed
@given(LABELS, AREAS, st.booleans(), st.integers(0, 4))
def test_no_new_label_and_no_small_region(labels: np.ndarray, area: int, fill: bool, smooth: int) -> None:
    before = labels.copy()
    cleaned = clean_labels(labels, min_area=area, fill_holes=fill, smooth=smooth)
    assert np.array_equal(labels, before)
    assert cleaned.dtype == np.int32
    assert set(np.unique(cleaned)) <= {0, *np.unique(labels)}
    assert all(len(piece) >= area for piece in pieces(cleaned, SIDES) if cleaned[min(piece)])


@untimed
@given(LABELS, AREAS, st.booleans())
def test_cleaning_is_idempotent(labels: np.ndarray, area: int, fill: bool) -> None:
    once = clean_labels(labels, min_area=area, fill_holes=fill)
    np.testing.assert_array_equal(clean_labels(once, min_area=area, fill_holes=fill), once)


@untimed
@given(LABELS)
def test_no_option_changes_nothing(labels: np.ndarray) -> None:
    np.testing.assert_array_equal(clean_labels(labels), labels)
    np.testing.assert_array_equal(remove_small_regions(labels, 1), labels)
    np.testing.assert_array_equal(smooth_borders(labels, 0), labels)


@untimed
@given(LABELS, AREAS)
def test_large_regions_and_background_are_unchanged(labels: np.ndarray, area: int) -> None:
    cleaned = remove_small_regions(labels, area)
    for piece in pieces(labels, SIDES):
        if labels[min(piece)] == 0 or len(piece) >= area:
            assert all(cleaned[place] == labels[place] for place in piece)


@untimed
@given(LABELS, AREAS)
def test_small_region_gets_the_label_of_the_longest_border(labels: np.ndarray, area: int) -> None:
    cleaned = remove_small_regions(labels, area)
    stays = np.zeros(labels.shape, bool)
    for piece in pieces(labels, SIDES):
        if labels[min(piece)] == 0 or len(piece) >= area:
            for place in piece:
                stays[place] = True
    marked = np.where(stays, labels, -1)
    for piece in pieces(labels, SIDES):
        beside = [label for label in around(piece, marked) if label >= 0]
        if not stays[min(piece)] and beside:
            counts = {label: beside.count(label) for label in beside}
            best = min(label for label, count in counts.items() if count == max(counts.values()))
            assert {int(cleaned[place]) for place in piece} == {best}


@untimed
@given(LABELS)
def test_holes_enclosed_by_one_class_are_filled(labels: np.ndarray) -> None:
    filled = fill_holes(labels)
    expected = labels.copy()
    for piece in pieces(labels, ALL_ROUND):
        edge = any(y in (0, labels.shape[0] - 1) or x in (0, labels.shape[1] - 1) for y, x in piece)
        beside = set(around(piece, labels)) - {0}
        if labels[min(piece)] == 0 and not edge and len(beside) == 1:
            for place in piece:
                expected[place] = next(iter(beside))
    np.testing.assert_array_equal(filled, expected)


@untimed
@given(LABELS, st.integers(1, 4))
def test_smoothing_is_a_majority_filter(labels: np.ndarray, radius: int) -> None:
    smooth = smooth_borders(labels, radius)
    for y, x in np.ndindex(labels.shape):
        window = labels[max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1]
        values, counts = np.unique(window, return_counts=True)
        best = values[counts == counts.max()]
        assert smooth[y, x] == (labels[y, x] if labels[y, x] in best else best[0])


def test_small_region_inside_a_small_region() -> None:
    labels = np.full((9, 9), 1)
    labels[3:6, 3:6] = 2
    labels[4, 4] = 3
    assert (remove_small_regions(labels, 20) == 1).all()
    # The ring of label 2 has 8 pixels, the speck in it 1.
    assert remove_small_regions(labels, 8)[4, 4] == 2


def test_without_large_regions_all_is_background() -> None:
    assert not remove_small_regions([[1, 1, 2, 2]], 3).any()
    assert not remove_small_regions([[5]], 2).any()


def test_ring_connected_by_corners_encloses_a_hole() -> None:
    diamond = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    np.testing.assert_array_equal(fill_holes(diamond), diamond)  # the corners are the same background
    ring = np.ones((4, 4), int)
    ring[1:3, 1:3] = 0
    assert fill_holes(ring).all()
    ring[0, 1] = 0
    assert not fill_holes(ring)[0, 1]


@pytest.mark.parametrize(
    ("labels", "options", "error", "said"),
    [
        ([1, 2], {}, ShapeError, r"labels \[H, W\].*\[2\]"),
        (np.zeros((0, 3), int), {}, ShapeError, "at least one pixel"),
        ([[0.5]], {}, InputError, "integer labels, got float64"),
        ([[-1]], {}, InputError, "0 to 65535, got -1"),
        ([[1]], {"min_area": -1}, InputError, "min_area: expected a whole number.*-1"),
        ([[1]], {"min_area": 2.5}, InputError, r"min_area.*2\.5"),
        ([[1]], {"smooth": True}, InputError, "smooth.*True"),
    ],
)
def test_bad_input(labels: Any, options: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        clean_labels(labels, **options)
