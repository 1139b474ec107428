"""Linear maps by oneDNN, which PyTorch contains, where that is faster than PyTorch's own choice."""

import functools
import platform
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliper.kernels.switch import kernels_enabled, use_cpu_kernels

__all__ = ["PackedLinear", "can_pack", "packed_linear"]

_TYPICAL_ROWS = 1024  # PackedLinear chooses its layout for this many rows; it multiplies any number


def packed_linear(
    weight: Tensor, rows: int, bias: Tensor | None = None, *, gelu: bool = False
) -> Callable[[Tensor], Tensor]:
    """The function ``x -> x @ weight^T + bias`` for many inputs x of about ``rows`` rows and one weight [N, K].

    Packing a weight once instead of on every call is a sixth faster for the layers of a CLIP, and four times faster
    where K is 40 to 64, with few products per number.

    Args:
        weight: [N, K]; it may be a view.
        rows: how many rows most inputs have; any number can be multiplied.
        bias: [N] or None.
        gelu: whether a GELU (exact, not by tanh) follows, which then needs no pass over memory.
    """
    if use_cpu_kernels(weight) and can_pack(weight.dtype):
        packed = _pack(weight.detach().contiguous(), rows)
        return lambda x: _packed_product(x, packed, bias, "gelu" if gelu else "none")
    return lambda x: F.gelu(F.linear(x, weight, bias)) if gelu else F.linear(x, weight, bias)


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
    """Whether oneDNN's products by packed weights can be called and agree with PyTorch's on a small case.

    oneDNN refuses bfloat16 on processors without support for it.
    """
    if platform.machine().lower() not in {"x86_64", "amd64"} or not torch.backends.mkldnn.is_available():
        return False
    try:
        with torch.inference_mode():
            x = torch.linspace(-1, 1, 75).reshape(25, 3).to(dtype)
            weight = torch.linspace(-1, 1, 12).reshape(4, 3).to(dtype)
            product = _packed_product(x, _pack(weight, len(x)), None)
            tolerance = 1e-5 if dtype == torch.float32 else 2e-2  # bfloat16: the last bit of values up to 3
            return bool(torch.allclose(product, x @ weight.T, atol=tolerance))
    except (AttributeError, RuntimeError, TypeError):  # a build of PyTorch without these operators
        return False


def _pack(weight: Tensor, rows: int) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return packed


def _packed_product(x: Tensor, packed: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, activation, [], "none")
    return product
