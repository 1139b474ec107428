"""Prepare a model for inference on a CPU."""

import torch
from torch import nn

from cliper.kernels.diffusers_modules import replace_modules
from cliper.kernels.linear import can_pack, transpose_linear_weights
from cliper.kernels.switch import kernels_enabled

__all__ = ["optimize_for_cpu"]


def optimize_for_cpu(model: nn.Module, device: torch.device | None = None, dtype: torch.dtype | None = None) -> None:
    """Make a model faster for inference on a CPU, in place; its results stay equal up to rounding.

    A model with weights gets the weights of its linear layers transposed in memory. A diffusers model on the meta
    device, about to be given its weights, gets its modules replaced by faster equivalents; a module with a method
    ``load_weight`` takes its weight through it. Nothing happens for a model on another device, where PyTorch lacks the
    operators, or with ``CLIPER_KERNELS=0``.

    Args:
        model: for inference only.
        device, dtype: of the weights that a model on the meta device will be given; not used otherwise.
    """
    if not kernels_enabled():
        return
    if not any(parameter.is_meta for parameter in model.parameters()):
        transpose_linear_weights(model)
    elif device is not None and dtype is not None and device.type == "cpu" and can_pack(dtype):
        replace_modules(model)
