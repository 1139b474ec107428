"""Loading only the parts of a diffusion pipeline that are needed, holding each tensor once.

``from_pretrained`` would load the whole autoencoder, and depending on what else is installed holds every tensor
twice for a while. Here a model is built without memory, unneeded parts are cut off, and what is left is filled
from the files piece by piece.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cliper.checkpoints.tensors import canonical_tensor_name, iter_tensors
from cliper.checkpoints.validate import weight_paths
from cliper.errors import CheckpointError
from cliper.kernels import optimize_for_cpu
from cliper.kernels.diffusers_modules import precompute_prompt
from cliper.refiners.pipeline import check_prompt_width

__all__ = ["load_unet", "load_vae_encoder"]

# Files are mapped into memory, and mapped pages count as used until the file is closed: it is closed and
# opened again after this many bytes.
_CHUNK_BYTES = 128 << 20


def load_unet(folder: Path, prompt: Tensor, *, device: torch.device, dtype: torch.dtype) -> Any:
    """The pipeline's ``UNet2DConditionModel``, ready for inference with this one prompt.

    Raises:
        CheckpointError: a configuration or weights that cannot be used, or that do not fit together.
    """
    from diffusers import UNet2DConditionModel

    check_prompt_width(folder, prompt.shape[-1])
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
    # Both sides in the one form that old and new releases of diffusers share.
    wanted = {canonical_tensor_name(name): name for name in model.state_dict()}
    for path in weight_paths(folder, "diffusion", part):
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
