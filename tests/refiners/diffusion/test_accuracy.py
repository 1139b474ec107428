"""Attention maps and refined maps in float32, against float64.

Two correct computations in float32 round differently, because each sums in its own order. The bound of twice the error
of plain float32 (the modules of diffusers in contiguous memory, whole attention maps) leaves room for that and little
more. The refined maps are compared at threshold 0: one value that crosses a threshold outweighs all rounding.
"""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny_models import DEFAULT_LAYERS, build_pipeline, plain_attention
from torch import Tensor

from cliper.refiners import Affinity, load_refiner
from cliper.refiners.diffusion.unet_attention import capture_query_key, tokens_grid
from cliper.settings import Settings

BOUND = 2.0
SEED = 3
CLASSES = 8
TWO_LEVELS = ("up_blocks.1.attentions.1", "up_blocks.1.attentions.0")  # the same layers of a UNet of two levels


def image(size: int, offset: float, scale: float) -> Tensor:
    """A smooth image [3, size, size] with values from ``offset`` to ``offset + scale``."""
    coarse = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    smooth = F.interpolate(coarse, size=(size, size), mode="bicubic")[0].clamp(0, 1)
    return offset + scale * smooth


def class_maps(side: int) -> Tensor:
    """Coarse class maps [CLASSES, side, side]."""
    return torch.rand(CLASSES, side, side, generator=torch.Generator().manual_seed(2))


@torch.inference_mode()
def refined_by_us(folder: Path, pixels: Tensor, layers: tuple[str, ...], shift: float) -> tuple[Tensor, Tensor]:
    """The refiner's attention maps [n, T, T] and refined maps."""
    refiner = load_refiner(folder, device="cpu")
    latents = refiner.encode_latents(pixels, pixels.shape[1:])
    noisy, timestep = refiner.add_noise(latents, 45, SEED)
    [heads] = capture_query_key(refiner.unet, noisy + shift, timestep, refiner.prompt, layers)
    attention = torch.cat([torch.softmax(q @ k.transpose(1, 2) * scale, -1) for q, k, scale in heads])
    settings = Settings(map_threshold=0)
    affinity = Affinity(tuple(heads), tokens_grid(latents.shape[-2:], attention.shape[-1]))
    refined = refiner.apply(affinity, class_maps(latents.shape[-1] // 2), settings)
    return attention, refined


@torch.inference_mode()
def refined_plainly(
    folder: Path, pixels: Tensor, layers: tuple[str, ...], shift: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The same by diffusers alone, in a chosen dtype."""
    size = tuple(pixels.shape[1:])
    attention = plain_attention(folder, pixels, SEED, size, layers, shift=shift, dtype=dtype)
    side = size[0] // 8
    maps = class_maps(side // 2).to(dtype)
    x = F.interpolate(maps[None], size=(side, side), mode="bilinear", align_corners=False)[0].flatten(1).T
    # No value is cut off (threshold 0): a cut is a jump, and a single value on its other side outweighs all rounding.
    for a in attention.flip(0):
        a = a / (a.amax(-2, keepdim=True) + 1e-5)
        x = (a / (a.sum(-1, keepdim=True) + 1e-5)) @ x
    return attention, x.T.reshape(CLASSES, side, side)


def errors(computed: Tensor, exact: Tensor) -> Tensor:
    """Median and 90th percentile of the absolute error, of up to 200,000 values."""
    stride = max(1, exact.numel() // 200_000) | 1  # odd: no column is favoured
    error = (computed.flatten()[::stride].double() - exact.flatten()[::stride]).abs()
    return torch.quantile(error, torch.tensor([0.5, 0.9], dtype=torch.float64))


def check(folder: Path, pixels: Tensor, layers: tuple[str, ...] = DEFAULT_LAYERS, shift: float = 0) -> None:
    """Compare the errors of attention maps and refined maps."""
    exact = refined_plainly(folder, pixels, layers, shift, torch.float64)
    plain = refined_plainly(folder, pixels, layers, shift, torch.float32)
    ours = refined_by_us(folder, pixels, layers, shift)
    for what, e, p, o in zip(("attention maps", "refined maps"), exact, plain, ours, strict=True):
        got, allowed = errors(o, e), BOUND * errors(p, e)
        assert bool((got <= allowed).all()), f"{what}: median and 90th percentile {got.tolist()}, {allowed.tolist()}"


@pytest.mark.full
@pytest.mark.parametrize("kind", ["sd2.1", "sd1.5"])
@pytest.mark.parametrize("shift", [0, 10, 30])
def test_tiny_pipelines_with_large_latents(pipelines: dict[str, Path], kind: str, shift: float) -> None:
    """1024 tokens; the mean of the latents is moved by ``shift``."""
    check(pipelines[kind], image(256, 0.1, 0.8), shift=shift)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["sd2.1", "sd1.5"])
def test_tiny_pipelines_with_a_bright_image(pipelines: dict[str, Path], kind: str) -> None:
    check(pipelines[kind], image(256, 0.95, 0.05))


def test_image_in_channels_last_memory(pipelines: dict[str, Path]) -> None:
    """As an image [H, W, 3] of numpy or Pillow is after its axes are permuted."""
    pixels = image(256, 0.1, 0.8)
    refined = [
        refined_by_us(pipelines["sd2.1"], view, DEFAULT_LAYERS, 0)
        for view in (pixels, pixels.permute(1, 2, 0).contiguous().permute(2, 0, 1))
    ]
    assert all(torch.equal(a, b) for a, b in zip(*refined, strict=True))


@pytest.mark.full
def test_unet_of_real_width(tmp_path: Path) -> None:
    """The two upper levels of Stable Diffusion 2.1's UNet on latents of 64x64, as the method has them."""
    check(build_pipeline(tmp_path, "wide-unet", sharpness=2), image(512, 0.1, 0.8), TWO_LEVELS)


@pytest.mark.full
def test_vae_encoder_of_real_width(tmp_path: Path) -> None:
    check(build_pipeline(tmp_path, "wide-vae"), image(256, 0.1, 0.8))
