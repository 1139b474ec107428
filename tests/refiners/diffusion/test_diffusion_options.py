"""Options of Stable Diffusion as a refiner: noise, blocks of layers, balanced maps, a tiny VAE."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from PIL import Image
from tiny_models import plain_attention
from torch import Tensor

from cliper.errors import CheckpointError
from cliper.model_config import ModelConfig
from cliper.ops import compensate
from cliper.refiners import load_refiner
from cliper.refiners.diffusion import DiffusionRefiner
from cliper.refiners.diffusion.unet_attention import find_layers
from cliper.settings import Settings

# Without a threshold, across which rounding would move values; queries and keys differ by about 1e-6.
TOLERANCE = 1e-4
SETTINGS = Settings(refine_threshold=0, refine_mode="mean", refine_size=64)


@pytest.fixture(scope="module")
def taesd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny VAE with random weights: three blocks that halve the resolution, as TAESD has."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("taesd")
    channels = (8, 8, 8, 8)
    AutoencoderTiny(encoder_block_out_channels=channels, decoder_block_out_channels=channels).save_pretrained(folder)
    return folder


def test_no_noise_scales_the_latents_only(refiner: DiffusionRefiner, images: list[Tensor], maps: list[Tensor]) -> None:
    latents = refiner.encode_latents(images[0], (64, 64))
    clean, timestep = refiner.add_noise(latents, 45, None)
    scale = refiner.scheduler.alphas_cumprod[int(timestep)].sqrt()
    torch.testing.assert_close(clean, latents * scale, atol=1e-6, rtol=1e-6)
    quiet = SETTINGS.replace(refine_noise=False)
    results = [refiner.refine(images[:1], maps[:1], quiet, seed)[0] for seed in (0, 1)]
    assert torch.equal(*results)
    assert not torch.equal(results[0], refiner.refine(images[:1], maps[:1], SETTINGS)[0])


def test_blocks_name_all_of_their_layers(refiner: DiffusionRefiner) -> None:
    top = [f"up_blocks.3.attentions.{index}" for index in (2, 1, 0)]
    assert list(find_layers(refiner.unet, ("up_blocks.3",))) == top
    both = list(find_layers(refiner.unet, ("up_blocks.3", "up_blocks.2")))
    assert both == top + [f"up_blocks.2.attentions.{index}" for index in (2, 1, 0)]
    assert list(find_layers(refiner.unet, ("upper_blocks",))) == both


def test_layers_of_several_resolutions_have_the_finest(
    pipelines: dict[str, Path], refiner: DiffusionRefiner, images: list[Tensor], maps: list[Tensor]
) -> None:
    """Queries and keys of the coarser layer are resized; a map made of them has all their tokens."""
    both = SETTINGS.replace(refine_layers=("up_blocks.3.attentions.1", "up_blocks.2.attentions.1"))
    [affinity] = refiner.encode(images[:1], both)
    assert affinity.grid == (8, 8)
    assert {layer.query.shape[1] for layer in affinity.values} == {64}
    fine, coarse = (
        refiner.encode(images[:1], SETTINGS.replace(refine_layers=(name,)))[0] for name in both.refine_layers
    )
    assert torch.equal(affinity.values[0].query, fine.values[0].query)
    query, key = (
        F.interpolate(t.mT.unflatten(-1, (4, 4)), (8, 8), mode="bilinear").flatten(2).mT for t in coarse.values[0][:2]
    )
    fine_maps = (fine.values[0].query @ fine.values[0].key.mT * fine.values[0].scale).softmax(-1)
    coarse_maps = (query @ key.mT * coarse.values[0].scale).softmax(-1)
    expected = compensate(maps[0], torch.cat([fine_maps, coarse_maps]), 0, "mean")
    torch.testing.assert_close(refiner.refine(images[:1], maps[:1], both)[0], expected, atol=TOLERANCE, rtol=0)


def test_balance_reaches_the_maps(
    pipelines: dict[str, Path], refiner: DiffusionRefiner, images: list[Tensor], maps: list[Tensor]
) -> None:
    attention = plain_attention(pipelines["sd2.1"], images[0], 0)
    got = refiner.refine(images[:1], maps[:1], SETTINGS.replace(refine_balance=15))[0]
    torch.testing.assert_close(got, compensate(maps[0], attention, 0, "mean", balance=15), atol=TOLERANCE, rtol=0)


def test_tiny_vae_gives_the_latents_of_diffusers(
    refiner: DiffusionRefiner, taesd: Path, images: list[Tensor], maps: list[Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("diffusers").addHandler(caplog.handler)
    latents = refiner.encode_latents(images[0], (64, 64), "bilinear", str(taesd))
    logging.getLogger("diffusers").removeHandler(caplog.handler)
    assert not caplog.records  # the configuration has a key that the library itself does not know
    pixels = F.interpolate(images[0][None], (64, 64), mode="bilinear", align_corners=False) * 2 - 1
    with torch.no_grad():
        expected = AutoencoderTiny.from_pretrained(taesd).encode(pixels).latents
    torch.testing.assert_close(latents, expected, atol=1e-5, rtol=1e-5)
    tiny = SETTINGS.replace(refine_vae=str(taesd))
    refined = refiner.refine(images[:1], maps[:1], tiny)[0]
    assert not torch.equal(refined, refiner.refine(images[:1], maps[:1], SETTINGS)[0])


def test_tiny_vaes_that_cannot_be_used(
    pipelines: dict[str, Path], taesd: Path, tmp_path: Path, images: list[Tensor], maps: list[Tensor]
) -> None:
    refiner = load_refiner(pipelines["sd2.1"], device="cpu")
    assert refiner is not None

    def refused(name: str | Path, match: str) -> None:
        with pytest.raises(CheckpointError, match=match):
            refiner.refine(images[:1], maps[:1], SETTINGS.replace(refine_vae=str(name)))

    refused("tiny", "no checkpoint is called 'tiny' .try taesd")
    refused(tmp_path, "a tiny autoencoder")
    refused(pipelines["sd2.1"] / "vae", "expected an AutoencoderTiny with 4 channels, such as taesd, got AutoencoderKL")
    other = Path(shutil.copytree(taesd, tmp_path / "other"))
    config = json.loads((other / "config.json").read_text()) | {"latent_channels": 16}
    (other / "config.json").write_text(json.dumps(config))
    refused(other, "with 16 channels")


def test_tiny_vae_of_a_command_is_found_before_it_begins(
    command: Callable[..., Any],
    clip_folder: Path,
    pipelines: dict[str, Path],
    taesd: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_image: Callable[..., Image.Image],
) -> None:
    """A run has the absolute path of its folder and its checksum, for workers and later runs."""
    (tmp_path / "photos").mkdir()
    make_image().save(tmp_path / "photos" / "a.png")
    models = ("-m", clip_folder, "-r", pipelines["sd2.1"], "--refine-size", 64)
    monkeypatch.chdir(taesd.parent)

    def batch(vae: str) -> Any:
        return command(
            "batch", tmp_path / "photos", "-c", "dog; cat", "-o", tmp_path / "out", *models, "--refine-vae", vae
        )

    ended = batch("nothing")
    assert ended.code == 2
    assert "no checkpoint is called 'nothing'" in ended.err
    assert not (tmp_path / "out").exists()
    assert batch(taesd.name).code == 0
    config = json.loads((tmp_path / "out" / "run.json").read_text())["config"]
    assert config["settings"]["refine_vae"] == str(taesd)
    assert list(config["refine_vae"]["sha256"]) == ["diffusion_pytorch_model.safetensors"]
    settings = SETTINGS.replace(refine_vae="nothing")
    with pytest.raises(CheckpointError, match="no checkpoint is called 'nothing'"):
        ModelConfig(str(clip_folder), settings, str(pipelines["sd2.1"])).load()
