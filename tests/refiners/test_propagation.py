"""Label propagation and edge-aware smoothing, as settings of refiners and of the segmenter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import cliper
from cliper.images import to_tensor
from cliper.ops import neighbor_weights, propagate_labels, smooth_along_edges
from cliper.refiners import load_refiner
from cliper.refiners.self_similarity import SelfSimilarityRefiner
from cliper.settings import Settings

SOLVE = Settings(refine_propagation="solve", refine_neighbors=20, refine_alpha=0.9)
EDGES = {"edge_weight": 20.0, "edge_sigma": 0.2}


def expected(maps: Tensor, features: Tensor, grid: tuple[int, int], patch_size: int) -> Tensor:
    weights = neighbor_weights(features, grid, neighbors=20, decay=0.01 * patch_size)
    y = F.interpolate(maps[None], size=grid, mode="bilinear", align_corners=False)[0].flatten(1).T
    return propagate_labels(y, weights, 0.9).T.reshape(-1, *grid)


def test_dino_solves_on_its_features(dinos: dict[str, Path], images: list[Tensor], maps: list[Tensor]) -> None:
    refiner: Any = load_refiner(dinos["dino"], device="cpu")
    for image, stack, refined in zip(images, maps, refiner.refine(images, maps, SOLVE), strict=True):
        grid = (image.shape[1] // 8, image.shape[2] // 8)
        features = refiner.features(image, (grid[0] * 8, grid[1] * 8))
        assert torch.equal(refined, expected(stack, features, grid, 8))


def test_self_solves_on_its_features(mini: Any, images: list[Tensor], maps: list[Tensor]) -> None:
    refiner = SelfSimilarityRefiner(mini.encoder)
    settings = SOLVE.replace(refine_size=(98, 154))
    [refined] = refiner.refine(images[:1], maps[:1], settings)
    assert torch.equal(refined, expected(maps[0], refiner.features(images[0], (98, 154)), (7, 11), 14))


@pytest.mark.parametrize("refiner", [None, "self"])
def test_edges_smooth_the_refined_maps(
    tiny: cliper.Segmenter, make_image: Callable[..., Image.Image], refiner: str | None
) -> None:
    image, plain = make_image(), tiny.with_refiner(refiner)
    smooth = plain.with_settings(plain.settings.replace(**EDGES))
    before, after = plain(image, ["dog", "cat"]), smooth(image, ["dog", "cat"])
    wanted = smooth_along_edges(torch.from_numpy(before.refined), to_tensor(image), weight=20, sigma=0.2)
    assert np.array_equal(after.refined, wanted.numpy())
    assert np.array_equal(after.maps, before.maps)
    assert after.refined.shape[1:] == (image.height, image.width)
    # The same from an image that was encoded without it, and from tensors.
    assert np.array_equal(smooth(plain.encode_image(image), ["dog", "cat"]).labels, after.labels)
    tensors = smooth.refine(to_tensor(image), torch.from_numpy(before.maps))
    torch.testing.assert_close(tensors, wanted, atol=1e-6, rtol=0)


def test_smooth_maps_follow_new_thresholds(tiny: cliper.Segmenter, make_image: Callable[..., Image.Image]) -> None:
    image, smooth = make_image(), tiny.with_settings(tiny.settings.replace(**EDGES))
    other = smooth.with_settings(smooth.settings.replace(score_threshold=0.1))
    again = smooth(image, ["dog", "cat"]).relabel(score_threshold=0.1)
    assert np.array_equal(again.labels, other(image, ["dog", "cat"]).labels)
