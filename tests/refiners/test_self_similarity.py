"""``refiner="self"``: equality with the formula on the encoder's patches, and images that are nearly uniform."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.errors import SettingsError
from cliper.refiners.affinity import propagate
from cliper.refiners.self_similarity import INVERSE_TEMPERATURE, MAX_LEVEL, MEAN_WEIGHT, SIDE, SelfSimilarityRefiner
from cliper.settings import Settings

# float32 sums of up to a few thousand terms in another order.
TOLERANCE = 1e-5
SIZE = (98, 154)
SETTINGS = Settings(refine_size=SIZE)


@pytest.fixture(scope="module")
def refiner(mini: Any) -> SelfSimilarityRefiner:
    """On the bundled checkpoint: patches of 14 pixels."""
    return SelfSimilarityRefiner(mini.encoder)


def similarity(refiner: SelfSimilarityRefiner, image: Tensor, size: tuple[int, int]) -> Tensor:
    features = refiner.features(image, size)
    unit = features / features.norm(dim=-1, keepdim=True)
    return unit @ unit.T


def plain(q: Tensor, level: Tensor, maps: Tensor, grid: tuple[int, int]) -> Tensor:
    scores = (q - level) * INVERSE_TEMPERATURE
    scores[scores < 0] = -torch.inf
    x = F.interpolate(maps[None], size=grid, mode="bilinear", align_corners=False)[0].flatten(1)
    return (scores.softmax(-1) @ x.T).T.reshape(-1, *grid)


def spread(maps: Tensor) -> float:
    return float((maps.amax((1, 2)) - maps.amin((1, 2))).min())


def structured(seed: int) -> Tensor:
    """Large patches of different texture, whose mean similarity is an ordinary one."""
    generator = torch.Generator().manual_seed(seed)
    coarse = F.interpolate(torch.rand(1, 3, 2, 3, generator=generator), size=SIZE)
    grain = torch.rand(1, 3, *SIZE, generator=generator) * F.interpolate(
        torch.rand(1, 1, 2, 3, generator=generator), size=SIZE
    )
    return (coarse * 0.6 + grain * 0.4)[0]


def test_equals_the_plain_formula(refiner: SelfSimilarityRefiner, maps: list[Tensor]) -> None:
    images = [structured(1), structured(2)]
    refined = refiner.refine(images, maps, SETTINGS)
    for image, stack, ours in zip(images, maps, refined, strict=True):
        q = similarity(refiner, image, SIZE)
        level = torch.minimum(MEAN_WEIGHT * q.mean(), q.mean() + MAX_LEVEL * (1 - q.mean()))
        expected = plain(q, level, stack, (7, 11))
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, expected, atol=TOLERANCE, rtol=0)
        assert spread(ours) > 0.1


def test_result_does_not_depend_on_batch_and_seed(refiner: SelfSimilarityRefiner, maps: list[Tensor]) -> None:
    images = [structured(1), structured(2)]
    together = refiner.refine(images, maps, SETTINGS)
    before = [t.clone() for t in (*images, *maps)]
    for i in (1, 0):
        other = SETTINGS.replace(refine_mode="mean", refine_step=3)
        assert torch.equal(refiner.refine([images[i]], [maps[i]], other, seed=9)[0], together[i])
    assert all(torch.equal(a, b) for a, b in zip((*images, *maps), before, strict=True))
    together[0] /= together[0].amax()  # results are not inference tensors
    assert refiner.refine([], [], SETTINGS) == []


PLAIN_IMAGES = {
    "grey": torch.full((3, 96, 144), 0.5),
    "black": torch.zeros(3, 96, 144),
    "gradient": torch.linspace(0, 1, 144).expand(3, 96, 144),
    "blurred": F.interpolate(
        torch.rand(1, 3, 3, 4, generator=torch.Generator().manual_seed(0)), (96, 144), mode="bicubic"
    )[0].clamp(0, 1),
    "one pixel": torch.full((3, 1, 1), 0.7),
}


@pytest.mark.parametrize("name", PLAIN_IMAGES)
def test_uniform_images_keep_their_maps(refiner: SelfSimilarityRefiner, name: str) -> None:
    """1.6 times their mean similarity is above 1: the formula alone leaves every patch with the mean of the maps."""
    image = PLAIN_IMAGES[name]
    maps = torch.rand(2, 4, 6, generator=torch.Generator().manual_seed(1))
    q = similarity(refiner, image, SIZE)
    assert MEAN_WEIGHT * q.mean() > 1
    alone = propagate(
        maps, refiner.features(image, SIZE), (7, 11), mean_weight=MEAN_WEIGHT, inverse_temperature=INVERSE_TEMPERATURE
    )
    assert spread(alone) < 1e-5
    [refined] = refiner.refine([image], [maps], SETTINGS)
    resized = F.interpolate(maps[None], size=(7, 11), mode="bilinear", align_corners=False)[0]
    assert spread(refined) > 0.3 * spread(resized)
    assert refined.amin() >= resized.amin() - TOLERANCE  # means of the maps' values
    assert refined.amax() <= resized.amax() + TOLERANCE


def test_max_level_has_no_effect_below_a_mean_of_0_6() -> None:
    """The mean similarity is 0.6 where the two meet."""
    maps, features = torch.rand(2, 5, 5), torch.randn(99, 16)
    for shift, below in ((0.0, True), (1.0, True), (2.0, False)):
        moved = features + shift
        unit = F.normalize(moved, dim=-1)
        assert (float(unit.mean(0).square().sum()) < 0.6) == below
        plain_one, limited = (
            propagate(maps, moved, (9, 11), mean_weight=1.6, max_level=max_level) for max_level in (None, 0.9)
        )
        assert torch.equal(plain_one, limited) == below


def test_identical_patches_get_the_mean() -> None:
    maps = torch.rand(2, 4, 4)
    got = propagate(maps, torch.rand(1, 24).expand(16, 24), (4, 4), mean_weight=1.6, max_level=0.9)
    torch.testing.assert_close(got, maps.mean((1, 2), keepdim=True).expand(2, 4, 4), atol=1e-4, rtol=0)


def test_constants_are_the_best_of_the_benchmark(mini: Any) -> None:
    report = json.loads((Path(__file__).parents[2] / "benchmarks" / "results" / "self_refiner.json").read_text())
    chosen = max(report["chosen_on"]["candidates"], key=lambda c: c["voc21"] + c["voc20"])
    assert (
        chosen["candidate"]
        == report["best"]
        == [SelfSimilarityRefiner(mini.encoder).layer, SIDE, MEAN_WEIGHT, INVERSE_TEMPERATURE]
    )


def test_bad_sizes_and_layers(refiner: SelfSimilarityRefiner, mini: Any, maps: list[Tensor]) -> None:
    with pytest.raises(SettingsError, match="refiner self needs multiples of 14, got 250x100; nearest is 252x98"):
        refiner.refine([torch.rand(3, 9, 9)], maps[:1], Settings(refine_size=(250, 100)))
    with pytest.raises(SettingsError, match="layer: expected one from 0 to"):
        SelfSimilarityRefiner(mini.encoder, layer=99)
