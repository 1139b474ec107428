"""Stable Diffusion as a refiner, from image to refined maps, beside a plain run of the whole pipeline."""

from pathlib import Path

import pytest
import torch
from tiny_models import DEFAULT_LAYERS, clear_threshold, plain_attention, plain_chain, plain_refine
from torch import Tensor

from cliper.refiners import load_refiner
from cliper.refiners.diffusion import DiffusionRefiner
from cliper.settings import Settings
from oracle import reference

# Two orders of summation in float32 differ by about 1e-6 in queries and keys, and by less than this in what the chain
# makes of them, unless a value lies at the threshold.
TOLERANCE = 1e-4
SETTINGS = Settings(map_threshold=0.1, refine_size=128)


@pytest.mark.parametrize("kind", ["sd2.1", "sd1.5"])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.full) for seed in (1, 2))])
def test_whole_path_equals_a_plain_one(
    pipelines: dict[str, Path], images: list[Tensor], maps: list[Tensor], kind: str, seed: int
) -> None:
    refiner = load_refiner(pipelines[kind], device="cpu")
    assert refiner is not None
    refined = refiner.refine(images, maps, SETTINGS, seed)
    for image, stack, ours in zip(images, maps, refined, strict=True):
        assert ours.shape == (len(stack), 16, 16)
        assert ours.dtype == torch.float32
        attention = plain_attention(pipelines[kind], image, seed, (128, 128))
        threshold = clear_threshold(attention)
        chain = SETTINGS.replace(refine_threshold=threshold)
        got = refiner.refine([image], [stack], chain, seed)[0]
        expected = reference.refine(stack, attention, threshold)
        torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)
        assert ((attention / attention.amax(-2, keepdim=True)) < threshold).float().mean() > 0.3
        # The chain of many maps leaves little to tell apart; the maps themselves have to agree as well.
        for index in (0, len(attention) - 1):
            one = reference.refine(stack, attention[index : index + 1], threshold)
            selected = chain.replace(refine_mode="selected", refine_map_index=index)
            got = refiner.refine([image], [stack], selected, seed)[0]
            torch.testing.assert_close(got, one, atol=TOLERANCE, rtol=0)
            assert one.amax() - one.amin() > 0.01


@pytest.mark.full
@pytest.mark.parametrize("size", [(72, 136), (128, 64)])
def test_whole_path_on_sizes_that_are_not_square(
    pipelines: dict[str, Path], refiner: DiffusionRefiner, images: list[Tensor], maps: list[Tensor], size: tuple
) -> None:
    """(72, 136) makes latents of 9x17: no level of the UNet is a whole half of the one above."""
    grid = (size[0] // 8, size[1] // 8)
    for image, stack in zip(images, maps, strict=True):
        attention = plain_attention(pipelines["sd2.1"], image, 4, size)
        threshold = clear_threshold(attention)
        how = SETTINGS.replace(refine_size=size, refine_threshold=threshold)
        got = refiner.refine([image], [stack], how, 4)[0]
        expected = plain_chain(stack, attention, threshold, grid)
        assert got.shape == (len(stack), *grid)
        torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)
        selected = how.replace(refine_mode="selected", refine_map_index=1)
        one = plain_chain(stack, attention[1:2], threshold, grid)
        assert one.amax() - one.amin() > 0.01
        torch.testing.assert_close(refiner.refine([image], [stack], selected, 4)[0], one, atol=TOLERANCE, rtol=0)


@pytest.mark.full
def test_chunked_attention_of_large_images(
    pipelines: dict[str, Path], refiner: DiffusionRefiner, images: list[Tensor], maps: list[Tensor]
) -> None:
    """256 pixels: 1024 tokens, from which attention is made in blocks."""
    attention = plain_attention(pipelines["sd2.1"], images[0], 5, (256, 256))
    threshold = clear_threshold(attention)
    how = SETTINGS.replace(refine_size=256, refine_threshold=threshold)
    ours = refiner.refine(images[:1], maps[:1], how, 5)[0]
    expected = reference.refine(maps[0], attention, threshold)
    torch.testing.assert_close(ours, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.full
@pytest.mark.parametrize("resize", ["nearest", "bilinear", "area"])
@pytest.mark.parametrize("step", [0, 30])
def test_resizing_and_step(
    pipelines: dict[str, Path],
    refiner: DiffusionRefiner,
    images: list[Tensor],
    maps: list[Tensor],
    resize: str,
    step: int,
) -> None:
    how = SETTINGS.replace(refine_size=64, refine_resize=resize, refine_step=step)
    ours = refiner.refine(images[:1], maps[:1], how, 1)[0]
    expected = plain_refine(pipelines["sd2.1"], images[0], maps[0], 1, 0.1, size=(64, 64), step=step, resize=resize)
    torch.testing.assert_close(ours, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.full
@pytest.mark.parametrize("mode", ["mean", "selected"])
def test_modes(
    pipelines: dict[str, Path], refiner: DiffusionRefiner, images: list[Tensor], maps: list[Tensor], mode: str
) -> None:
    ours = refiner.refine(images[:1], maps[:1], SETTINGS.replace(refine_mode=mode, refine_map_index=2), 0)[0]
    attention = plain_attention(pipelines["sd2.1"], images[0], 0, (128, 128))
    alone = [reference.refine(maps[0], a[None], 0.1) for a in attention]
    expected = torch.stack(alone).mean(0) if mode == "mean" else alone[2]
    torch.testing.assert_close(ours, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.full
@pytest.mark.parametrize(
    "layers",
    [DEFAULT_LAYERS[::-1], ("down_blocks.0.attentions.1",), ("up_blocks.2.attentions.0", "down_blocks.1.attentions.0")],
)
def test_other_layers_in_any_order(
    pipelines: dict[str, Path],
    refiner: DiffusionRefiner,
    images: list[Tensor],
    maps: list[Tensor],
    layers: tuple[str, ...],
) -> None:
    ours = refiner.refine(images[:1], maps[:1], SETTINGS.replace(refine_layers=layers), 0)[0]
    expected = plain_refine(pipelines["sd2.1"], images[0], maps[0], 0, 0.1, size=(128, 128), layers=layers)
    torch.testing.assert_close(ours, expected, atol=TOLERANCE, rtol=0)
