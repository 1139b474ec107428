"""Pipelines with Stable Diffusion's shapes and random weights, and what the benchmark refines with them."""

import json
import string
from pathlib import Path

import torch
import torch.nn.functional as F

__all__ = ["CLASSES", "IMAGE", "MODELS", "SEED", "build", "inputs"]

MODELS = {
    "sd2.1": {"heads": [5, 10, 20, 20], "text": 1024, "linear": True, "layers": 23, "text_heads": 16},
    "sd1.5": {"heads": 8, "text": 768, "linear": False, "layers": 12, "text_heads": 12},
}
CLASSES = 20
IMAGE = (426, 640)
SEED = 0


def build(folder: Path, model: str, quick: bool) -> None:
    """A pipeline with the model's shapes (or with few channels) and random weights."""
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    shape = MODELS[model]
    torch.manual_seed(SEED)
    small = {"block_out_channels": (32, 32, 32, 32), "norm_num_groups": 8} if quick else {}
    heads = ([2, 4, 4, 4] if isinstance(shape["heads"], list) else 4) if quick else shape["heads"]
    width = 32 if quick else shape["text"]
    unet = UNet2DConditionModel(
        sample_size=64,
        attention_head_dim=heads,
        cross_attention_dim=width,
        use_linear_projection=shape["linear"],
        **small,
    )
    unet.save_pretrained(folder / "unet")
    del unet
    AutoencoderKL(
        block_out_channels=(16, 16, 16, 16) if quick else (128, 256, 512, 512),
        norm_num_groups=8 if quick else 32,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
    ).save_pretrained(folder / "vae")
    CLIPTextModel(
        CLIPTextConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=2 if quick else shape["layers"],
            num_attention_heads=2 if quick else shape["text_heads"],
            vocab_size=64 if quick else 49408,
            bos_token_id=1,
            eos_token_id=2,
        )
    ).save_pretrained(folder / "text_encoder")
    PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    ).save_pretrained(folder / "scheduler")
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    letters = [*string.ascii_lowercase, *(f"{c}</w>" for c in string.ascii_lowercase)]
    tokens = [*letters, "<|startoftext|>", "<|endoftext|>"]
    (tokenizer / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (tokenizer / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": tokens[-2], "eos_token": tokens[-1], "unk_token": tokens[-1], "pad_token": tokens[-1]}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(config))
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


def inputs(quick: bool) -> tuple[torch.Tensor, torch.Tensor, int]:
    """The image, its class maps, and the side to which the image is resized."""
    generator = torch.Generator().manual_seed(SEED)
    coarse = torch.rand(1, 3, 14, 20, generator=generator)
    image = F.interpolate(coarse, size=IMAGE, mode="bicubic")[0].clamp(0, 1)
    return image, torch.rand(CLASSES, 21, 32, generator=generator), 128 if quick else 512
