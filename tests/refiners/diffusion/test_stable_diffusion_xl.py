"""Stable Diffusion XL as a refiner, beside its own pipeline: two text encoders, no self-attention in the last block."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from tiny_models import _Collect, _StopForward, build_pipeline, build_tokenizer, text_config
from torch import Tensor
from transformers import CLIPTextModelWithProjection

from cliper.checkpoints import check_folder, verify_checkpoint
from cliper.errors import CheckpointError
from cliper.refiners import load_refiner
from cliper.refiners.diffusion import DiffusionRefiner
from cliper.settings import Settings
from oracle import reference

SETTINGS = Settings(map_threshold=0.1, refine_size=(128, 192), refine_mode="mean", refine_threshold=0)
LAYERS = [f"up_blocks.1.attentions.{a}.transformer_blocks.{b}" for a in (1, 0) for b in (1, 0)]
# As for the other pipelines: two orders of summation in float32.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline with the architecture of Stable Diffusion XL and few channels."""
    folder = build_pipeline(tmp_path_factory.mktemp("xl") / "pipeline", "sd2.1")
    vocabulary = build_tokenizer(folder / "tokenizer_2", "!")
    torch.manual_seed(1)
    second = text_config(vocabulary, 32, layers=3, projection=20)
    CLIPTextModelWithProjection(second).save_pretrained(folder / "text_encoder_2")
    shutil.rmtree(folder / "unet")
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32, 32),
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 2, 3],
        attention_head_dim=[1, 2, 4],
        use_linear_projection=True,
        cross_attention_dim=24 + 32,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 20,
    )
    # Less sharp than the other pipelines: its several layers in a row let rounding grow to 3e-4 with a factor of 6.
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if name.endswith(("attn1.to_q.weight", "attn1.to_k.weight")):
                parameter *= 3
    unet.save_pretrained(folder / "unet")
    index = json.loads((folder / "model_index.json").read_text())
    del index["safety_checker"]
    index |= {
        "_class_name": "StableDiffusionXLPipeline",
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "force_zeros_for_empty_prompt": False,
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@torch.no_grad()
def plain_maps(folder: Path, image: Tensor, size: tuple[int, int]) -> Tensor:
    """The softmaxed maps [n, T, T] of one whole run of the pipeline."""
    pipe = StableDiffusionXLPipeline.from_pretrained(folder)
    prompt, _, pooled, _ = pipe.encode_prompt("", do_classifier_free_guidance=False)
    times = pipe._get_add_time_ids(size, (0, 0), size, torch.float32, text_encoder_projection_dim=20)
    pixels = F.interpolate(image[None], size=size, mode="nearest") * 2 - 1
    latents = pipe.vae.encode(pixels).latent_dist.mean * pipe.vae.config.scaling_factor
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    pipe.scheduler.set_timesteps(50)
    timestep = pipe.scheduler.timesteps[45]
    noisy = pipe.scheduler.scale_model_input(pipe.scheduler.add_noise(latents, noise, timestep[None]), timestep)
    maps: dict[str, Any] = {f"{layer}.attn1.processor": torch.empty(0) for layer in LAYERS}
    pipe.unet.set_attn_processor({name: _Collect(name, maps) for name in pipe.unet.attn_processors})
    added = {"text_embeds": pooled, "time_ids": times}
    with suppress(_StopForward):
        pipe.unet(noisy, timestep, encoder_hidden_states=prompt, added_cond_kwargs=added)
    return torch.cat([maps[f"{layer}.attn1.processor"] for layer in LAYERS])


def test_mean_of_its_maps_equals_that_of_the_pipeline(folder: Path, images: list[Tensor], maps: list[Tensor]) -> None:
    refiner = load_refiner(folder, device="cpu")
    assert isinstance(refiner, DiffusionRefiner)
    refined = refiner.refine(images[:1], maps[:1], SETTINGS)[0]
    attention = plain_maps(folder, images[0], (128, 192))
    assert attention.shape == (4 * 2, 8 * 12, 8 * 12)  # layers times heads; half as fine as the latents
    x = F.interpolate(maps[0][None], size=(8, 12), mode="bilinear", align_corners=False)[0].flatten(1).T
    chains = [a / (a.amax(-2, keepdim=True) + 1e-5) for a in attention]
    expected = torch.stack([(a / (a.sum(-1, keepdim=True) + 1e-5)) @ x for a in chains]).mean(0).T.reshape(-1, 8, 12)
    torch.testing.assert_close(refined, expected, atol=TOLERANCE, rtol=0)
    assert refined.std() > 0.01


def test_chain_has_the_order_of_the_method(folder: Path, images: list[Tensor], maps: list[Tensor]) -> None:
    square = SETTINGS.replace(refine_mode="chain", refine_size=128)
    refined = load_refiner(folder, device="cpu").refine(images[:1], maps[:1], square)[0]
    expected = reference.refine(maps[0], plain_maps(folder, images[0], (128, 128)), 0)
    torch.testing.assert_close(refined, expected, atol=TOLERANCE, rtol=0)


def test_default_size_is_that_of_its_training(folder: Path) -> None:
    refiner = load_refiner(folder, device="cpu")
    assert isinstance(refiner, DiffusionRefiner)
    assert refiner._default_size((100, 100), Settings()) == (1024, 1024)


def test_its_autoencoder_is_not_run_in_float16(folder: Path, images: list[Tensor], maps: list[Tensor]) -> None:
    refiner = load_refiner(folder, device="cpu", dtype=torch.float16)
    assert isinstance(refiner, DiffusionRefiner)
    assert (refiner.vae.dtype, refiner.unet.dtype) == (torch.float32, torch.float16)
    assert refiner.encode_latents(images[0], (64, 64)).dtype == torch.float16


def test_every_part_is_checked(folder: Path, tmp_path: Path) -> None:
    assert verify_checkpoint(folder).problems == []
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "text_encoder_2" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no text_encoder_2/model.safetensors"):
        check_folder(copy, "diffusion")
    shutil.rmtree(copy / "text_encoder_2")
    with pytest.raises(CheckpointError, match="got a UNet with addition_embed_type 'text_time' and one text encoder"):
        load_refiner(copy, device="cpu")
