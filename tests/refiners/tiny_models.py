"""Tiny random models in the libraries' own formats, and what a plain implementation makes of them."""

import json
import string
from contextlib import suppress
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    Dinov2Config,
    Dinov2Model,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    ViTConfig,
    ViTModel,
)

from oracle import reference

# What tells Stable Diffusion 2.1 from 1.5: heads by level, width of the text, linear projections.
PIPELINES = {
    "sd2.1": {"attention_head_dim": [2, 4, 4, 4], "cross_attention_dim": 24, "use_linear_projection": True},
    "sd1.5": {"attention_head_dim": 4, "cross_attention_dim": 16, "use_linear_projection": False},
    "wide-unet": {
        "attention_head_dim": [5, 10],
        "cross_attention_dim": 24,
        "use_linear_projection": True,
        "block_out_channels": (320, 640),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "norm_num_groups": 32,
    },
}
PIPELINES["wide-vae"] = PIPELINES["sd2.1"]
_FEW_CHANNELS = {"block_out_channels": (16, 32, 32, 32), "norm_num_groups": 8}
DEFAULT_LAYERS = ("up_blocks.3.attentions.1", "up_blocks.3.attentions.0")


def text_config(vocabulary: int, width: int, *, layers: int = 2, projection: int = 512) -> CLIPTextConfig:
    """Of a text encoder with few channels, whose last two tokens are the start and the end."""
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        projection_dim=projection,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
    )


def build_pipeline(folder: Path, kind: str, sharpness: float = 6) -> Path:
    """A pipeline with Stable Diffusion's architecture and few channels.

    Self-attention's queries and keys are multiplied by ``sharpness``: with the usual initialisation all maps are
    nearly flat, and no threshold cuts anything off. Two kinds have real widths: ``"wide-unet"`` the uppermost two
    levels of Stable Diffusion 2.1's UNet, ``"wide-vae"`` its VAE.
    """
    torch.manual_seed(0)
    shape = PIPELINES[kind]
    unet = UNet2DConditionModel(**{"sample_size": 8, **_FEW_CHANNELS, **shape})
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if name.endswith(("attn1.to_q.weight", "attn1.to_k.weight")):
                parameter *= sharpness
    unet.save_pretrained(folder / "unet")
    wide = kind == "wide-vae"
    AutoencoderKL(
        block_out_channels=(128, 256, 512, 512) if wide else (8, 16, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        norm_num_groups=32 if wide else 4,
    ).save_pretrained(folder / "vae")
    vocabulary = build_tokenizer(folder / "tokenizer", "!" if kind == "sd2.1" else "<|endoftext|>")
    CLIPTextModel(text_config(vocabulary, shape["cross_attention_dim"])).save_pretrained(folder / "text_encoder")
    PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def build_tokenizer(folder: Path, pad: str) -> int:
    """A CLIP tokenizer that knows single letters; returns the size of its vocabulary."""
    letters = string.ascii_lowercase + "!"
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": tokens[-2], "eos_token": tokens[-1], "unk_token": tokens[-1], "pad_token": pad}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(tokens)


def build_dino(folder: Path, kind: str) -> Path:
    """A tiny ViT (DINO), DINOv2 or DINOv3, which has four registers."""
    torch.manual_seed(0)
    shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8}
    if kind == "dino":
        ViTModel(ViTConfig(intermediate_size=48, image_size=48, **shape), add_pooling_layer=False).save_pretrained(
            folder
        )
    elif kind == "dinov3":
        config = DINOv3ViTConfig(intermediate_size=48, num_register_tokens=4, pos_embed_rescale=2.0, **shape)
        model = DINOv3ViTModel(config)
        torch.nn.init.normal_(model.embeddings.register_tokens)
        model.save_pretrained(folder)
    else:
        Dinov2Model(Dinov2Config(mlp_ratio=2, image_size=48, **shape)).save_pretrained(folder)
    return folder


class _StopForward(Exception):
    """Every wanted map has been seen."""


class _Collect:
    """The textbook attention, which keeps the softmaxed maps of the self-attentions that ``maps`` has a name for."""

    def __init__(self, name: str, maps: dict[str, Tensor]) -> None:
        self.name, self.maps = name, maps

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q = attn.head_to_batch_dim(attn.to_q(hidden_states))
        k, v = (attn.head_to_batch_dim(layer(context)) for layer in (attn.to_k, attn.to_v))
        probabilities = attn.get_attention_scores(q, k)
        if encoder_hidden_states is None and self.name in self.maps:
            self.maps[self.name] = probabilities
            if all(len(kept) for kept in self.maps.values()):
                raise _StopForward
        return attn.to_out[0](attn.batch_to_head_dim(torch.bmm(probabilities, v)))


@torch.no_grad()
def plain_attention(
    folder: Path,
    image: Tensor,
    seed: int,
    size=(64, 64),
    layers=DEFAULT_LAYERS,
    step=45,
    resize="nearest",
    shift: float = 0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The softmaxed maps [n, T, T] of one whole run of the pipeline, in ``dtype``, on one image.

    ``shift`` is added to the noisy latents before the UNet.
    """
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, feature_extractor=None).to(dtype=dtype)
    tokens = pipe.tokenizer("", padding="max_length", max_length=pipe.tokenizer.model_max_length, return_tensors="pt")
    prompt = pipe.text_encoder(tokens.input_ids)[0]
    align = False if resize in ("bilinear", "bicubic") else None
    pixels = F.interpolate(image[None].to(dtype), size=size, mode=resize, align_corners=align) * 2 - 1
    pipe.vae.set_attn_processor(AttnProcessor())
    latents = pipe.vae.encode(pixels).latent_dist.mean * pipe.vae.config.scaling_factor
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    pipe.scheduler.set_timesteps(50)
    timestep = pipe.scheduler.timesteps[step]
    noisy = pipe.scheduler.add_noise(latents, noise, timestep[None]) + shift
    places = [f"{layer}.transformer_blocks.0.attn1.processor" for layer in layers]
    maps: dict[str, Tensor] = dict.fromkeys(places, torch.empty(0))
    pipe.unet.set_attn_processor({name: _Collect(name, maps) for name in pipe.unet.attn_processors})
    with suppress(_StopForward):
        pipe.unet(noisy, timestep, encoder_hidden_states=prompt)
    return torch.cat([maps[place] for place in places])


# How far ours and the plain run's maps, divided by their column maxima, are apart at most: queries and keys differ by
# 1e-6, scores of up to 100 by 1e-4. (It was measured: 2.6e-4 on two pipelines at five sizes.)
ROUNDING = 3e-4


def clear_threshold(attention: Tensor) -> float:
    """The lowest threshold above 0.05 that no value of the n normalised maps [n, T, T] comes near.

    Thresholding is a jump: a value within rounding of the threshold may fall on either side, and which values do
    differs between processors. Where a row keeps few values one alone moves its pixel by far more than rounding, and
    a chain passes that on.
    """
    values = (attention / (attention.amax(-2, keepdim=True) + 1e-5)).flatten().sort().values
    values = values[values > 0.05]
    wide = (values[1:] - values[:-1] > 2 * ROUNDING).nonzero()
    assert len(wide), "no threshold is clear of all values"
    index = int(wide[0])
    return float((values[index] + values[index + 1]) / 2)


def plain_chain(maps: Tensor, attention: Tensor, threshold: float, grid: tuple[int, int]) -> Tensor:
    """What the oracle does on square grids, on any: every map multiplied, left to right."""
    x = F.interpolate(maps[None], size=grid, mode="bilinear", align_corners=False)[0].flatten(1).T
    chain = torch.eye(grid[0] * grid[1])
    for a in attention:
        a = a / (a.amax(-2, keepdim=True) + 1e-5)
        a = torch.where(a < threshold, 0, a)
        chain = chain @ (a / (a.sum(-1, keepdim=True) + 1e-5))
    return (chain @ x).T.reshape(-1, *grid)


def plain_refine(folder: Path, image: Tensor, maps: Tensor, seed: int, threshold: float, **how) -> Tensor:
    """The whole path on square sizes: every map held, multiplied left to right."""
    return reference.refine(maps, plain_attention(folder, image, seed, **how), threshold)
