"""Linear maps by oneDNN, which PyTorch contains, where that is faster than PyTorch's own choice."""

import functools
import platform
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliper.kernels.switch import kernels_enabled, use_cpu_kernels

__all__ = ["PackedLinear", "can_pack", "linear", "packed_linear", "transpose_linear_weights"]

_TYPICAL_ROWS = 1024  # PackedLinear chooses its layout for this many rows; it multiplies any number


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``, as :func:`torch.nn.functional.linear`, inference only.

    In float32 on x86 processors PyTorch calls MKL, which does not use AVX-512 on processors of other makers than
    Intel; oneDNN reaches about twice MKL's rate there and is as fast elsewhere (``benchmarks/clip_stage.py`` measures
    both). The two differ by rounding only.

    Args:
        x: [..., K].
        weight: [M, K]; it may be a transposed view.
        bias: [M] or None.

    Returns:
        [..., M], dtype and device of ``x``.
    """
    if x.dtype == torch.float32 and use_cpu_kernels(x) and _has_onednn() and not torch.is_grad_enabled():
        return _onednn_linear(x, weight, bias)
    return F.linear(x, weight, bias)


def transpose_linear_weights(module: nn.Module) -> None:
    """Store the weights of every ``nn.Linear`` in ``module`` transposed in memory, where :func:`linear` uses oneDNN.

    Shapes and values stay. oneDNN then reads the weights in memory order, about a tenth faster than transposing them
    on every call. Only float32 weights on the CPU are changed.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear) and part.weight.dtype == torch.float32:
            weight = part.weight.detach()
            if use_cpu_kernels(weight) and _has_onednn():
                part.weight = nn.Parameter(weight.t().contiguous().t(), requires_grad=False)


def packed_linear(weight: Tensor, rows: int) -> Callable[[Tensor], Tensor]:
    """The function ``x -> x @ weight^T`` for many blocks x of about ``rows`` rows and one weight [N, K].

    With few products per number (K is 40 to 64) most of the time goes into packing the weight. Packing it once
    instead of once per block is four times faster, and twice as fast as MKL.

    Args:
        weight: float32 [N, K]; it may be a view.
        rows: how many rows most blocks have; any number can be multiplied.
    """
    if weight.dtype == torch.float32 and use_cpu_kernels(weight) and can_pack(torch.float32):
        packed = _pack(weight.contiguous(), rows)
        return lambda x: _packed_product(x, packed, None)
    return lambda x: x @ weight.T


class PackedLinear(nn.Module):
    """A linear layer whose weight is stored in oneDNN's packed layout.

    Args:
        layer: it may be on the meta device; the weight is set by :meth:`load_weight`.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias

    def load_weight(self, weight: Tensor) -> None:
        """Pack and store the weight [out, in]."""
        self.weight = nn.Parameter(_pack(weight.detach(), _TYPICAL_ROWS), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return _packed_product(x, self.weight, self.bias)


def can_pack(dtype: torch.dtype) -> bool:
    """Whether kernels are enabled, and oneDNN multiplies by packed weights of this dtype: float32 or bfloat16."""
    return kernels_enabled() and dtype in (torch.float32, torch.bfloat16) and _has_onednn(dtype)


@functools.cache
def _has_onednn(dtype: torch.dtype = torch.float32) -> bool:
    """Whether oneDNN's products, packed and not, can be called and agree with PyTorch's on a small case.

    oneDNN refuses bfloat16 on processors without support for it.
    """
    if platform.machine().lower() not in {"x86_64", "amd64"} or not torch.backends.mkldnn.is_available():
        return False
    try:
        with torch.inference_mode():
            x = torch.linspace(-1, 1, 75).reshape(25, 3).to(dtype)
            weight = torch.linspace(-1, 1, 12).reshape(4, 3).to(dtype)
            products = torch.stack([_onednn_linear(x, weight, None), _packed_product(x, _pack(weight, len(x)), None)])
            tolerance = 1e-5 if dtype == torch.float32 else 2e-2  # bfloat16: the last bit of values up to 3
            return bool(torch.allclose(products, (x @ weight.T).expand_as(products), atol=tolerance))
    except (AttributeError, RuntimeError, TypeError):  # a build of PyTorch without these operators
        return False


def _pack(weight: Tensor, rows: int) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return packed


def _packed_product(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return product


def _onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # Other strides make oneDNN use its reference kernel, a thousand times slower than a copy.
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()
    return _packed_product(x.contiguous(), weight, bias)
