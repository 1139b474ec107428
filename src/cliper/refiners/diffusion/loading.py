"""Check a diffusion pipeline's configuration and load only the parts that are needed, each tensor held once.

The configuration is checked before any weights are read: other kinds of pipelines have the same folders and files as
Stable Diffusion's, and would fail inside a network.

``from_pretrained`` would load the whole autoencoder, and depending on what else is installed holds every tensor
twice for a while. Here a model is built on the meta device, unneeded parts are removed, and the others are filled from
the files piece by piece.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cliper.checkpoints import check_folder
from cliper.checkpoints.tensors import iter_tensors
from cliper.checkpoints.validate import read_json, weight_paths
from cliper.errors import CheckpointError, reraise
from cliper.kernels import optimize_for_cpu
from cliper.kernels.diffusers_modules import precompute_prompt

__all__ = ["check_pipeline", "load_tiny_encoder", "load_unet", "load_vae_encoder"]

# Files are mapped into memory, and mapped pages count as used until the file is closed: it is closed and
# opened again after this many bytes.
_CHUNK_BYTES = 128 << 20

# Inputs of other UNets besides latents, time and prompt.
_OTHER_INPUTS = ("class_embed_type", "num_class_embeds", "encoder_hid_dim_type")

_RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_NAMES = re.compile(rf"(attentions\.\d+)\.({'|'.join(_RENAMED)})\.")

_EXPECTED = "expected a pipeline of Stable Diffusion's first two generations or XL, such as sd2.1 or sd1.5"


def check_pipeline(folder: Path) -> None:
    """Check that a folder holds a complete pipeline of Stable Diffusion whose UNet and autoencoder fit together.

    Raises:
        CheckpointError: it does not; the message says why.
    """
    index = folder / "model_index.json"
    name = read_json(index, "a pipeline in diffusers' layout has one").get("_class_name")
    if name is not None and not str(name).startswith("StableDiffusion"):
        raise CheckpointError(f"{index}: {_EXPECTED} (StableDiffusionPipeline), got {name}")
    check_folder(folder, "diffusion")
    unet_path, vae_path = (folder / part / "config.json" for part in ("unet", "vae"))
    unet, vae = (read_json(path, "the pipeline needs it") for path in (unet_path, vae_path))
    for name in _OTHER_INPUTS:
        if unet.get(name) is not None:
            raise CheckpointError(f"{unet_path}: {_EXPECTED}, got a UNet with {name} {unet[name]!r}")
    added, second = unet.get("addition_embed_type"), (folder / "text_encoder_2").is_dir()
    if added != ("text_time" if second else None):
        encoders = "two text encoders" if second else "one text encoder"
        raise CheckpointError(f"{unet_path}: {_EXPECTED}, got a UNet with addition_embed_type {added!r} and {encoders}")
    # Defaults are those of diffusers.
    takes, gives = unet.get("in_channels", 4), vae.get("latent_channels", 4)
    if takes != gives:
        raise CheckpointError(
            f"{unet_path}: {_EXPECTED}, got a UNet that takes {takes} channels and an autoencoder that gives {gives}"
        )
    factors = {"scaling_factor": vae.get("scaling_factor", 0.18215), "shift_factor": vae.get("shift_factor") or 0}
    for name, value in factors.items():
        if not isinstance(value, int | float):
            raise CheckpointError(f"{vae_path}: {name}: expected a number, got {value!r}")


def load_unet(folder: Path, prompt: Tensor, *, device: torch.device, dtype: torch.dtype) -> Any:
    """The pipeline's ``UNet2DConditionModel``, ready for inference with this one prompt.

    Raises:
        CheckpointError: a configuration or weights that cannot be used, or that do not fit together.
    """
    from diffusers import UNet2DConditionModel

    unet = _build(UNet2DConditionModel, folder / "unet")
    width, widths = prompt.shape[-1], unet.config.cross_attention_dim
    if any(other != width for other in (widths if isinstance(widths, list | tuple) else [widths])):
        raise CheckpointError(
            f"{folder / 'unet'}: expected a UNet for prompts of width {width}, which the text encoder makes, "
            f"got one for {widths}"
        )
    precompute_prompt(unet, prompt)
    optimize_for_cpu(unet, device, dtype)
    _fill(unet, weight_paths(folder, "diffusion", "unet"), device, dtype)
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
    _fill(vae, weight_paths(folder, "diffusion", "vae"), device, dtype)
    return vae


def load_tiny_encoder(folder: Path, channels: int, *, device: torch.device, dtype: torch.dtype) -> Any:
    """An ``AutoencoderTiny`` with its encoder only, for a UNet that takes latents of ``channels`` channels.

    Raises:
        CheckpointError: it is something else, its latents have another number of channels, or weights are missing.
    """
    from diffusers import AutoencoderTiny

    check_folder(folder, "vae")
    config = read_json(folder / "config.json", "an autoencoder has one")
    got = f"{config.get('_class_name')} with {config.get('latent_channels', 4)} channels"
    if got != f"AutoencoderTiny with {channels} channels":
        raise CheckpointError(
            f"{folder}: expected an AutoencoderTiny with {channels} channels, such as taesd, got {got}"
        )
    vae = _build(AutoencoderTiny, folder)
    del vae.decoder
    _fill(vae, weight_paths(folder, "vae"), device, dtype)
    return vae


def _build(model_class: Any, folder: Path) -> Any:
    """A model from its configuration, on the meta device."""
    with reraise(Exception, CheckpointError, f"{folder}: not the configuration of its {model_class.__name__}"):
        config = model_class.load_config(str(folder))
        if "encoder_block_out_channels" in config:  # AutoencoderTiny writes this one too, and warns when it reads it
            config.pop("block_out_channels", None)
        with torch.device("meta"):
            model = model_class.from_config(config)
    return model.eval().requires_grad_(False)


def _fill(model: nn.Module, paths: Sequence[Path], device: torch.device, dtype: torch.dtype) -> None:
    """Load the weights of a model on the meta device from files.

    Raises:
        CheckpointError: a tensor that is missing or has another shape, or a file that cannot be read.
    """
    wanted = {*model.state_dict()}
    for path in paths:
        for stored, tensor in _tensors(path, wanted):
            name = _current_name(stored)
            wanted.remove(name)
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
        names = sorted(wanted)
        raise CheckpointError(
            f"{paths[0].parent}: {len(names)} weights are missing, {names[0]} first; get the checkpoint again"
        )


def _current_name(name: str) -> str:
    """A tensor's name in present releases of diffusers; the VAE's attention had others before 0.12."""
    return _OLD_NAMES.sub(lambda match: f"{match[1]}.{_RENAMED[match[2]]}.", name)


def _tensors(path: Path, wanted: Collection[str]) -> Iterator[tuple[str, Tensor]]:
    """Tensors of a file whose name is in ``wanted``, from which the caller removes each before it asks for the next."""
    while True:
        size = 0
        for name, tensor in iter_tensors(path):
            if _current_name(name) not in wanted:
                continue
            yield name, tensor
            size += tensor.nbytes
            if size > _CHUNK_BYTES and path.suffix == ".safetensors":
                break
        else:
            return
