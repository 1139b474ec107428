"""Label Studio's run-length encoding, against a simple decoder."""

from __future__ import annotations

import numpy as np
import pytest
from format_helpers import decode_brush
from hypothesis import example, given, settings
from hypothesis.extra.numpy import array_shapes, arrays

from cliper.formats.label_studio_rle import encode_brush_rle


@settings(deadline=None)
@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=40)))
@example(np.ones((1, 1), bool))
def test_mask_is_decoded_again(mask: np.ndarray) -> None:
    values = decode_brush(encode_brush_rle(mask)).reshape(*mask.shape, 4)
    np.testing.assert_array_equal(values, np.repeat(mask[..., None] * np.uint8(255), 4, axis=2))


@pytest.mark.parametrize("pixels", [1, 2, 4, 5, 64, 65, 16384, 16385, 32768, 40001])
def test_runs_at_the_limits_of_each_length_size(pixels: int) -> None:
    mask = np.zeros((1, pixels + 3), bool)
    mask[0, 2 : 2 + pixels] = True
    np.testing.assert_array_equal(decode_brush(encode_brush_rle(mask)).reshape(-1, 4)[:, 3] > 0, mask[0])
