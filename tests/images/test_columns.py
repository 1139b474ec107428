"""Columns of an image, as of Cityscapes: the whole image is resized and then cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cliper.images import preprocess, resized_shape
from published_order import published_pixels

CLIP: dict[str, Any] = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
HALVES = {"left": (0, 2), "right": (1, 2)}
PUBLISHED = pytest.mark.parametrize(("size", "patch"), [(560, 16), (448, 14)])


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of Cityscapes' size; noise, so that every pixel differs from its neighbours."""
    path = tmp_path_factory.mktemp("street") / "street.png"
    noise = np.random.default_rng(3).integers(0, 256, (1024, 2048, 3), np.uint8)
    Image.fromarray(noise).save(path, compress_level=0)
    return path


@PUBLISHED
def test_halves_are_those_of_the_published_order(street: Path, size: int, patch: int) -> None:
    whole = Image.open(street)
    for half, column in HALVES.items():
        pixels = preprocess(whole, size=size, patch=patch, column=column, **CLIP)
        assert pixels.shape == (3, size, size)
        assert torch.equal(pixels, published_pixels(street, half, size=size, patch=patch, **CLIP))


@PUBLISHED
def test_columns_beside_the_cut_are_those_of_the_whole(street: Path, size: int, patch: int) -> None:
    """Of an image that is cut first they would differ, since bicubic weights reach over the cut."""
    whole = Image.open(street)
    resized = preprocess(whole, size=size, patch=patch, **CLIP)
    left, right = (preprocess(whole, size=size, patch=patch, column=column, **CLIP) for column in HALVES.values())
    assert torch.equal(left[..., -1], resized[..., size - 1])
    assert torch.equal(right[..., 0], resized[..., size])
    assert torch.equal(torch.cat([left, right], -1), resized)
    cut_first = preprocess(whole.crop((0, 0, 1024, 1024)), size=size, patch=patch, **CLIP)
    assert not torch.equal(cut_first[..., -1], left[..., -1])
    assert torch.equal(cut_first[..., :-3], left[..., :-3])


@given(
    st.one_of(st.integers(1, 2100).map(lambda h: (2 * h, h)), st.tuples(st.integers(2, 3000), st.integers(1, 3000))),
    st.integers(14, 700),
    st.sampled_from([14, 16]),
)
def test_halves_have_whole_patches_whatever_the_size(whole: tuple[int, int], size: int, patch: int) -> None:
    """The published code would cut an odd number of patches through the middle of one and drop both pieces."""
    height, width = resized_shape(*whole, size, patch, columns=2)
    assert height == resized_shape(*whole, size, patch)[0]
    assert width % (2 * patch) == 0
    published = resized_shape(*whole, size, patch)[1]
    assert width == published if published % (2 * patch) == 0 else abs(width - published) == patch
    if whole[0] == 2 * whole[1]:
        assert width == 2 * height


def test_an_odd_number_of_patches_becomes_even() -> None:
    # 55 patches of 16 pixels; the published code's halves of 440 pixels would keep 432 of them.
    assert resized_shape(2048, 1024, size=440, patch=16) == (448, 880)
    left, right = (
        preprocess(Image.new("RGB", (2048, 1024)), size=440, patch=16, column=column, **CLIP)
        for column in HALVES.values()
    )
    assert left.shape == right.shape == (3, 448, 448)
