"""Resizing, scaling and normalising images for an encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from cliper.errors import ImageError
from cliper.images import MAX_PATCHES, preprocess, resized_shape, to_tensor


def photo(width: int = 64, height: int = 48) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


@given(
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.sampled_from([224, 336, 448, 560]),
    st.sampled_from([14, 16, 32]),
)
def test_resized_shape(width: int, height: int, size: int, patch: int) -> None:
    new_height, new_width = resized_shape(width, height, size, patch)
    assert new_height % patch == new_width % patch == 0
    assert min(new_height, new_width) >= patch
    scale = size / min(width, height)
    assert abs(new_width - width * scale) <= patch / 2 + 1e-6
    assert abs(new_height - height * scale) <= patch / 2 + 1e-6


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 1024), st.sampled_from([8, 14, 16, 32]))
@example(180, 120, 336, 16)
def test_resized_shape_is_the_published_formula(width: int, height: int, size: int, patch: int) -> None:
    """The published statement; it has no lower limit, so a side of no patch is compared with one patch."""
    scale = size / min(width, height)
    published = [int(side * scale / patch + 0.5) * patch for side in (height, width)]
    assert list(resized_shape(width, height, size, patch)) == [max(side, patch) for side in published]


def test_resized_shape_where_the_order_of_the_arithmetic_decides() -> None:
    # 180 * 336 / 120 is exactly 504, or 31.5 patches; 180 * (336 / 120) is just below.
    assert resized_shape(180, 120, size=336, patch=16) == (336, 496)
    assert resized_shape(120, 180, size=336, patch=16) == (496, 336)


def test_resized_shape_is_at_least_one_patch() -> None:
    assert resized_shape(1, 1, size=1, patch=16) == (16, 16)
    assert resized_shape(500, 375, size=336, patch=16) == (336, 448)
    assert resized_shape(375, 500, size=336, patch=14) == (448, 336)


def test_preprocess_is_pil_bicubic_then_normalised() -> None:
    mean, std = [0.48, 0.45, 0.40], [0.26, 0.25, 0.27]
    image = photo(70, 50)
    tensor = preprocess(image, size=48, patch=16, mean=mean, std=std)
    resized = np.asarray(image.resize((64, 48), Image.Resampling.BICUBIC), dtype=np.float64) / 255
    assert tensor.dtype == torch.float32
    np.testing.assert_allclose(tensor.permute(1, 2, 0), (resized - mean) / std, atol=1e-6)


def test_preprocess_refuses_strips_and_huge_sizes() -> None:
    options: dict[str, Any] = {"mean": [0.5] * 3, "std": [0.5] * 3, "patch": 16}
    with pytest.raises(ImageError, match=r"aspect ratio 1\.5e\+04 : 1.*cut it into pieces or lower size"):
        preprocess(Image.new("RGB", (30_000, 2)), size=336, **options)
    with pytest.raises(ImageError, match=f"at most {MAX_PATCHES}.*size 4096"):
        preprocess(Image.new("RGB", (8, 8)), size=4096, **options)
    assert preprocess(Image.new("RGB", (1, 1)), size=32, **options).shape == (3, 32, 32)


def test_to_tensor() -> None:
    image = photo()
    tensor = to_tensor(image)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    np.testing.assert_array_equal(tensor.permute(1, 2, 0), np.asarray(image, dtype=np.float32) / 255)
