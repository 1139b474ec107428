"""Parts of a result as JSON values, read back."""

from __future__ import annotations

import numpy as np
import pytest

from cliper.errors import InputError
from cliper.formats.json_result import decode_maps, decode_masks, encode_maps, encode_masks, encode_polygons


def test_masks_are_read_back() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (7, 9))
    labels[:, 4] = 3
    assert np.array_equal(decode_masks(encode_masks(labels), (7, 9), 3), labels)
    assert [one["label"] for one in encode_masks(labels)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("label", "size", "counts"),
    [(0, [2, 2], "4"), (2, [2, 2], "4"), (1, [2, 3], "4"), (1, [2, 2], "5"), (1, [2, 2], "?")],
)
def test_masks_that_do_not_fit_are_refused(label: int, size: list[int], counts: str) -> None:
    with pytest.raises(InputError):
        decode_masks([{"label": label, "rle": {"size": size, "counts": counts}}], (2, 2), 1)


def test_areas_of_polygons_are_those_of_the_regions() -> None:
    labels = np.array([[1, 1, 0, 2], [0, 1, 1, 0], [2, 0, 1, 1]])
    polygons = encode_polygons(labels)
    assert [(one["label"], one["area"]) for one in polygons] == [(1, 6), (2, 1), (2, 1)]
    for one in polygons:
        x, y = np.array(one["points"]).T
        assert abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) == 2 * one["area"]


def test_maps_are_exact_at_their_extremes_and_close_elsewhere() -> None:
    maps = np.random.default_rng(0).random((3, 5, 7), dtype=np.float32)
    maps[1] = 0.25  # a constant map
    decoded = decode_maps(encode_maps(maps), 3)
    # Half a step of 65,535 and the rounding of float32.
    assert np.abs(decoded - maps).max() < 1 / 65535
    assert np.array_equal(decoded.max((1, 2)), maps.max((1, 2)))
    assert np.array_equal(decoded.min((1, 2)), maps.min((1, 2)))


@pytest.mark.parametrize(
    ("values", "message"), [({"data": "?"}, "base64"), ({"data": "AA=="}, "60 bytes"), ({"low": []}, "2 classes")]
)
def test_maps_that_do_not_fit_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        decode_maps({**encode_maps(np.ones((2, 3, 5), np.float32)), **values}, 2)
