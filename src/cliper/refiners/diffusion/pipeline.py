"""What a pipeline's configuration says of it, looked at before any weights are read.

Other kinds of pipelines have the same folders and files as Stable Diffusion's, and fail somewhere inside a network.
"""

import math
from pathlib import Path
from typing import Any

from cliper.checkpoints.validate import read_json
from cliper.errors import CheckpointError

__all__ = ["check_parts", "check_pipeline_class", "check_prompt_width"]

# What a UNet can be built to be given besides latents, time and prompt; Stable Diffusion's is given none of it.
_MORE_INPUTS = ("addition_embed_type", "class_embed_type", "num_class_embeds", "encoder_hid_dim_type")

_WANTED = "expected a pipeline of Stable Diffusion's first two generations, such as sd2.1 or sd1.5"


def check_pipeline_class(folder: Path) -> None:
    """Check which pipeline ``model_index.json`` names; none is as good as Stable Diffusion's.

    Raises:
        CheckpointError: another pipeline than one of Stable Diffusion's; no such file.
    """
    path = folder / "model_index.json"
    name = read_json(path, "a pipeline in diffusers' layout has one").get("_class_name")
    if name is not None and not str(name).startswith("StableDiffusion"):
        raise CheckpointError(f"{path}: {_WANTED} (StableDiffusionPipeline), got {name}")


def check_parts(folder: Path) -> None:
    """Check that UNet and autoencoder are of Stable Diffusion's kind, and fit together.

    Raises:
        CheckpointError: they are not; a configuration that is not there or no JSON.
    """
    unet_path, vae_path = (folder / part / "config.json" for part in ("unet", "vae"))
    unet, vae = (read_json(path, "the pipeline needs it") for path in (unet_path, vae_path))
    for name in _MORE_INPUTS:
        if unet.get(name) is not None:
            raise CheckpointError(f"{unet_path}: {_WANTED}, got a UNet with {name} {unet[name]!r}")
    # What is not said is as in diffusers: 4 for both.
    takes, gives = unet.get("in_channels", 4), vae.get("latent_channels", 4)
    if takes != gives:
        raise CheckpointError(
            f"{unet_path}: {_WANTED}, got a UNet that takes {takes} channels beside an autoencoder that gives {gives}"
        )
    for name, needed in (("scaling_factor", True), ("shift_factor", False)):
        value = vae.get(name, 0.18215 if needed else None)
        if not _is_number(value) and (needed or value is not None):
            raise CheckpointError(f"{vae_path}: {name}: expected a number, got {value!r}")


def check_prompt_width(folder: Path, width: int) -> None:
    """Check that the UNet takes prompts as wide as the text encoder makes them.

    Raises:
        CheckpointError: it takes others.
    """
    path = folder / "unet" / "config.json"
    takes = read_json(path, "the pipeline needs it").get("cross_attention_dim", 1280)  # diffusers' default
    if any(each != width for each in (takes if isinstance(takes, list) else [takes])):
        raise CheckpointError(
            f"{path}: expected a UNet for prompts of width {width}, which the text encoder makes, got one for {takes}"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
