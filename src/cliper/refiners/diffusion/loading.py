"""Check a diffusion pipeline's configuration and load only the parts that are needed, each tensor held once.

The configuration is checked before any weights are read: other kinds of pipelines have the same folders and files as
Stable Diffusion's, and would fail inside a network.

``from_pretrained`` would load the whole autoencoder, and depending on what else is installed holds every tensor
twice for a while. Here a model is built without memory, unneeded parts are cut off, and what is left is filled
from the files piece by piece.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cliper.checkpoints.files import COMPONENTS
from cliper.checkpoints.tensors import canonical_tensor_name, iter_tensors
from cliper.checkpoints.validate import read_json, weight_paths
from cliper.errors import CheckpointError
from cliper.kernels import optimize_for_cpu
from cliper.kernels.diffusers_modules import precompute_prompt

__all__ = ["check_parts", "check_pipeline_class", "load_unet", "load_vae_encoder"]

# Files are mapped into memory, and mapped pages count as used until the file is closed: it is closed and
# opened again after this many bytes.
_CHUNK_BYTES = 128 << 20

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


def _check_prompt_width(folder: Path, width: int) -> None:
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


def load_unet(folder: Path, prompt: Tensor, *, device: torch.device, dtype: torch.dtype) -> Any:
    """The pipeline's ``UNet2DConditionModel``, ready for inference with this one prompt.

    Raises:
        CheckpointError: a configuration or weights that cannot be used, or that do not fit together.
    """
    from diffusers import UNet2DConditionModel

    _check_prompt_width(folder, prompt.shape[-1])
    unet = _build(UNet2DConditionModel, folder / "unet")
    precompute_prompt(unet, prompt)
    optimize_for_cpu(unet, device, dtype)
    _fill(unet, folder, "unet", device, dtype)
    return unet


def load_vae_encoder(folder: Path, *, device: torch.device, dtype: torch.dtype) -> Any:
    """The pipeline's ``AutoencoderKL`` with its encoder only; the decoder is never read.

    Raises:
        CheckpointError: a configuration or weights that cannot be used, or that do not fit together.
    """
    from diffusers import AutoencoderKL

    vae = _build(AutoencoderKL, folder / "vae")
    del vae.decoder
    vae.post_quant_conv = None
    optimize_for_cpu(vae, device, dtype)
    _fill(vae, folder, "vae", device, dtype)
    return vae


def _build(kind: Any, folder: Path) -> Any:
    """A model from its configuration, without memory for its weights."""
    try:
        config = kind.load_config(str(folder))
        with torch.device("meta"):
            model = kind.from_config(config)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError, ArithmeticError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{folder}: not the configuration of its {kind.__name__}: {reason}") from None
    return model.eval().requires_grad_(False)


def _fill(model: nn.Module, folder: Path, part: str, device: torch.device, dtype: torch.dtype) -> None:
    """Give a model without memory its weights.

    Raises:
        CheckpointError: a tensor that is missing or has another shape, or a file that cannot be read.
    """
    component = next(item for item in COMPONENTS["diffusion"] if item.folder == part)
    # Both sides in the one form that old and new releases of diffusers share.
    wanted = {canonical_tensor_name(name): name for name in model.state_dict()}
    for path in weight_paths(folder, component):
        for stored, tensor in _tensors(path, wanted.keys()):
            name = wanted.pop(canonical_tensor_name(stored))
            owner_name, _, leaf = name.rpartition(".")
            owner: Any = model.get_submodule(owner_name)
            expected = getattr(owner, leaf).shape
            if tensor.shape != expected and tensor.squeeze().shape == expected:
                tensor = tensor.squeeze()  # old autoencoders hold linear weights as 1x1 convolutions
            if tensor.shape != expected:
                raise CheckpointError(f"{path}: {stored}: expected shape {list(expected)}, got {list(tensor.shape)}")
            if leaf == "weight" and hasattr(owner, "load_weight"):
                owner.load_weight(tensor.to(dtype))
                continue
            copy = torch.empty(expected, device=device, dtype=dtype).copy_(tensor)
            setattr(owner, leaf, nn.Parameter(copy, requires_grad=False))
    if wanted:
        names = sorted(wanted.values())
        raise CheckpointError(
            f"{folder / part}: {len(names)} weights are missing, {names[0]} first; get the checkpoint again"
        )


def _tensors(path: Path, wanted: Any) -> Iterator[tuple[str, Tensor]]:
    """The wanted tensors of a file, one at a time; each is only good until the next is asked for."""
    done: set[str] = set()
    finished = False
    while not finished:
        size, finished = 0, True
        for name, tensor in iter_tensors(path):
            if name in done or canonical_tensor_name(name) not in wanted:
                continue
            done.add(name)
            yield name, tensor
            size += tensor.nbytes
            if size > _CHUNK_BYTES and path.suffix == ".safetensors":
                finished = False
                break


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
