"""Regions of a label map."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from cliper.formats.regions import class_regions, find_regions

LABELS = arrays(np.int32, array_shapes(min_dims=2, max_dims=2, max_side=24), elements=st.integers(0, 3))


@settings(deadline=None)
@given(LABELS)
def test_regions_partition_the_label_map(labels: np.ndarray) -> None:
    for regions in (find_regions(labels), class_regions(labels)):
        painted = np.zeros_like(labels)
        for region in regions:
            left, top, width, height = region.box
            window = painted[top : top + height, left : left + width]
            assert not window[region.mask].any()
            window[region.mask] = region.label
            for axis in (0, 1):  # the box is tight
                assert region.mask.any(axis=axis)[[0, -1]].all()
        np.testing.assert_array_equal(painted, labels)


def test_pixels_are_connected_by_their_sides() -> None:
    regions = list(find_regions([[1, 0, 2], [0, 1, 2]]))
    assert [(r.label, r.box, r.area) for r in regions] == [
        (1, (0, 0, 1, 1), 1),
        (1, (1, 1, 1, 1), 1),
        (2, (2, 0, 1, 2), 2),
    ]


def test_class_regions_are_one_per_class() -> None:
    regions = list(class_regions([[1, 0, 9], [0, 1, 9]]))
    assert [(r.label, r.box, r.area) for r in regions] == [(1, (0, 0, 2, 2), 2), (9, (2, 0, 1, 2), 2)]
