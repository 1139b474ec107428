"""The linear map, by whichever kernel is faster on this machine."""

import functools
import platform

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["linear", "relayout_linears"]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``, as :func:`torch.nn.functional.linear`, inference only.

    In float32 on x86 processors PyTorch sends this to MKL, which leaves AVX-512 unused on processors that
    are not Intel's; oneDNN, which PyTorch carries too, reaches about twice its rate there and is as fast
    elsewhere (``benchmarks/clip_stage.py`` measures both). The two differ by rounding only.

    Args:
        x: [..., K].
        weight: [M, K]; it may be a transposed view.
        bias: [M] or None.

    Returns:
        [..., M], dtype and device of ``x``.
    """
    if x.dtype == torch.float32 and x.device.type == "cpu" and _has_onednn() and not torch.is_grad_enabled():
        return _onednn_linear(x, weight, bias)
    return F.linear(x, weight, bias)


def relayout_linears(module: nn.Module) -> None:
    """Lay the weights of every ``nn.Linear`` in ``module`` out input by input, where :func:`linear` gains by it.

    Shapes and values stay; oneDNN then reads the weights as they lie, about a tenth faster than transposing
    them at every call. Only float32 weights on the CPU are touched.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear) and part.weight.dtype == torch.float32:
            weight = part.weight.detach()
            if weight.device.type == "cpu" and _has_onednn():
                part.weight = nn.Parameter(weight.t().contiguous().t(), requires_grad=False)


def _onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # Other strides send oneDNN to its reference kernel, a thousand times slower than a copy.
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()
    x = x.contiguous()
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


@functools.cache
def _has_onednn() -> bool:
    """Whether oneDNN's linear can be called and agrees with the plain one on a small case."""
    if platform.machine().lower() not in {"x86_64", "amd64"} or not torch.backends.mkldnn.is_available():
        return False
    x = torch.arange(12.0).reshape(3, 4)
    try:
        with torch.no_grad():
            return bool(torch.allclose(_onednn_linear(x, x, None), x @ x.T))
    except (AttributeError, RuntimeError):  # a build of PyTorch without the operator
        return False
