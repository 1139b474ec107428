"""COCO's run-length encoding, against pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

from cliper.errors import InputError
from cliper.formats.coco_rle import decompress_counts, encode_coco_rle

untimed = settings(deadline=None)

MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=40))


def expected(mask: np.ndarray) -> str:
    return coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()


@untimed
@given(MASKS)
@example(np.zeros((3, 2), bool))
@example(np.ones((3, 2), bool))
def test_counts_are_those_of_pycocotools(mask: np.ndarray) -> None:
    assert encode_coco_rle(mask) == {"size": list(mask.shape), "counts": expected(mask)}


@untimed
@given(MASKS, st.tuples(*[st.integers(0, 3)] * 4))
def test_mask_of_a_box_equals_the_mask_of_the_image(mask: np.ndarray, frame: tuple[int, int, int, int]) -> None:
    top, bottom, left, right = frame
    whole = np.pad(mask, ((top, bottom), (left, right)))
    assert encode_coco_rle(mask, left=left, top=top, size=whole.shape) == encode_coco_rle(whole)


@untimed
@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=12))
def test_long_runs_are_those_of_pycocotools(lengths: list[int]) -> None:
    mask = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)[None]
    assert encode_coco_rle(mask)["counts"] == expected(mask)


@untimed
@given(st.lists(st.integers(1, 5000), min_size=1, max_size=30))
def test_decompressed_counts_are_those_that_pycocotools_compressed(counts: list[int]) -> None:
    total = sum(counts)
    text = coco.frPyObjects({"size": [1, total], "counts": counts}, 1, total)["counts"].decode()
    assert decompress_counts(text).tolist() == counts


@untimed
@given(MASKS)
def test_decompressed_counts_fill_the_mask(mask: np.ndarray) -> None:
    counts = decompress_counts(encode_coco_rle(mask)["counts"])
    values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    assert np.array_equal(values.reshape(mask.shape[::-1]).T, mask)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("04/", "another character"),
        ("04p", "another character"),
        ("0\0", "another character"),
        ("04\u00e9", "another character"),
        ("0oo", "does not end"),
        ("o" * 7 + "0", "35 bits"),
    ],
)
def test_damaged_counts_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        decompress_counts(text)
