"""Run lengths, against those who read them: pycocotools, and a plain decoder of Label Studio's stream."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from made_results import decode_brush
from pycocotools import mask as coco

from cliper.errors import InputError, ShapeError
from cliper.formats.coco_rle import compress_counts, decompress_counts, mask_counts
from cliper.formats.label_studio_rle import encode_brush_rle

untimed = settings(deadline=None)

MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=40))


@untimed
@given(MASKS)
@example(np.zeros((3, 2), bool))
@example(np.ones((3, 2), bool))
def test_text_is_that_of_pycocotools(mask: np.ndarray) -> None:
    expected = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert compress_counts(mask_counts(mask)) == expected["counts"].decode()


@untimed
@given(MASKS, st.tuples(*[st.integers(0, 3)] * 4))
def test_a_part_says_what_the_whole_says(mask: np.ndarray, frame: tuple[int, int, int, int]) -> None:
    top, bottom, left, right = frame
    whole = np.pad(mask, ((top, bottom), (left, right)))
    np.testing.assert_array_equal(mask_counts(mask, left=left, top=top, size=whole.shape), mask_counts(whole))


@untimed
@given(st.lists(st.integers(1, 2**31 - 1), min_size=1, max_size=30))
def test_long_runs(counts: list[int]) -> None:
    # Sums may go beyond a picture's size; pycocotools' own text of the counts is what is asked for.
    sane = np.array(counts) % 5000 + 1
    expected = coco.frPyObjects({"size": [1, int(sane.sum())], "counts": sane.tolist()}, 1, int(sane.sum()))
    assert compress_counts(sane) == expected["counts"].decode()


@untimed
@given(st.lists(st.integers(0, 2**30), max_size=30))
def test_decompress_is_the_inverse_of_compress(counts: list[int]) -> None:
    assert decompress_counts(compress_counts(np.array(counts, np.int64)) if counts else "").tolist() == counts


@untimed
@given(MASKS)
def test_decompress_reads_text_of_pycocotools(mask: np.ndarray) -> None:
    text = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert decompress_counts(text).tolist() == mask_counts(mask).tolist()


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
def test_damaged_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        decompress_counts(text)


def test_counts_by_hand() -> None:
    mask = np.array([[0, 1, 1], [1, 1, 0]], bool)  # columns: 01, 11, 10
    assert mask_counts(mask).tolist() == [1, 4, 1]
    assert mask_counts(np.ones((2, 3), bool)).tolist() == [0, 6]
    assert mask_counts(np.zeros((2, 3), bool)).tolist() == [6]


def test_misfits() -> None:
    with pytest.raises(ShapeError, match="inside a picture of 4x4"):
        mask_counts(np.ones((2, 3), bool), left=2, size=(4, 4))
    with pytest.raises(ShapeError, match=r"mask \[h, w\]"):
        mask_counts(np.ones(3, bool))
    with pytest.raises(ShapeError, match=r"mask \[H, W\]"):
        encode_brush_rle(np.ones((0, 3), bool))


@untimed
@given(MASKS)
@example(np.ones((1, 1), bool))
def test_brush_is_read_back(mask: np.ndarray) -> None:
    values = decode_brush(encode_brush_rle(mask)).reshape(*mask.shape, 4)
    np.testing.assert_array_equal(values, np.repeat(mask[..., None] * np.uint8(255), 4, axis=2))


@pytest.mark.parametrize("pixels", [1, 2, 4, 5, 64, 65, 16384, 16385, 32768, 40001])
def test_brush_runs_at_the_ends_of_each_size(pixels: int) -> None:
    mask = np.zeros((1, pixels + 3), bool)
    mask[0, 2 : 2 + pixels] = True
    np.testing.assert_array_equal(decode_brush(encode_brush_rle(mask)).reshape(-1, 4)[:, 3] > 0, mask[0])
