"""The same layers with fewer passes over memory, for our own copy of a model, inference only.

On a CPU a diffusion model spends a good part of its time outside its products: laying out weights again on
every call, writing into fresh memory, dividing by one. Here the modules of a loaded model are replaced by
equal ones that do not. What is computed is the same up to rounding.
"""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliper.ops.compensation import times_transposed

__all__ = ["LeanResnet", "PackedConv2d", "PackedLinear", "attend", "make_lean"]

# Below this many keys PyTorch's own attention is as fast.
_MANY_KEYS = 1024


def make_lean(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Replace, inside a model that has no weights yet, what has a leaner equal.

    Args:
        model: on the meta device; ours alone, for inference only.
        device, dtype: of the weights that it is about to be given.
    """
    from diffusers.models.resnet import ResnetBlock2D

    pack = device.type == "cpu" and dtype in (torch.float32, torch.bfloat16) and _can_pack()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is ResnetBlock2D and LeanResnet.can_replace(child):
                setattr(parent, name, LeanResnet(child))
    for parent in list(model.modules()) if pack else ():
        for name, child in list(parent.named_children()):
            if type(child) is nn.Conv2d and child.padding_mode == "zeros":
                setattr(parent, name, PackedConv2d(child))
            elif type(child) is nn.Linear:
                setattr(parent, name, PackedLinear(child))


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Attention output [B, H, T, d] without a whole map. ``query`` [B, H, T, d], others [B, H, K, d]."""
    keys = key.shape[-2]
    if query.device.type != "cpu" or query.dtype != torch.float32 or keys < _MANY_KEYS or not _can_pack():
        return F.scaled_dot_product_attention(query, key, value, scale=scale)
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    rows = max(16, (4 << 20) // (4 * keys))
    for b, h in [(b, h) for b in range(query.shape[0]) for h in range(query.shape[1])]:
        scaled = query[b, h] * scale
        times_key = times_transposed(key[b, h], rows)
        times_value = times_transposed(value[b, h].T, rows)
        for start in range(0, len(scaled), rows):
            scores = times_key(scaled[start : start + rows])
            out[b, h, start : start + rows] = times_value(torch.softmax(scores, -1, out=scores))
    return out


class LeanResnet(nn.Module):
    """A diffusers ``ResnetBlock2D`` that reuses its own intermediate results' memory.

    Args:
        block: for which :meth:`can_replace` holds; its layers are taken over.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.conv1, self.norm2, self.conv2 = block.norm1, block.conv1, block.norm2, block.conv2
        self.time_emb_proj, self.conv_shortcut = block.time_emb_proj, block.conv_shortcut

    @staticmethod
    def can_replace(block: Any) -> bool:
        """Whether the block is as in Stable Diffusion: SiLU, additive time, no resizing, no scaling."""
        return bool(
            isinstance(block.nonlinearity, nn.SiLU)
            and block.upsample is None
            and block.downsample is None
            and block.time_embedding_norm == "default"
            and not block.skip_time_act
            and block.output_scale_factor == 1
        )

    def forward(self, x: Tensor, temb: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
        """[B, C, h, w] -> [B, C', h, w]."""
        h = self.conv1(F.silu(self.norm1(x), inplace=True))
        if temb is not None and self.time_emb_proj is not None:
            h += self.time_emb_proj(F.silu(temb))[:, :, None, None]
        h = F.silu(self.norm2(h), inplace=True)
        h = self.conv2(h)
        h += x if self.conv_shortcut is None else self.conv_shortcut(x)
        return h


class PackedLinear(nn.Module):
    """A linear layer by oneDNN, which takes the weight as it is."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return out


class PackedConv2d(nn.Module):
    """A convolution whose weight is kept in the order in which oneDNN reads it.

    Args:
        layer: its shape and bias are taken over; the weight comes with :meth:`pack`.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.in_channels, self.out_channels = layer.in_channels, layer.out_channels
        self.weight, self.bias = layer.weight, layer.bias
        self._how = (layer.padding, layer.stride, layer.dilation, layer.groups)

    def pack(self, weight: Tensor) -> None:
        """Take the weight, [out, in, h, w] on the CPU; it is not kept."""
        packed = torch._C._nn.mkldnn_reorder_conv2d_weight(weight.detach().to_mkldnn(), *self._how)
        self.weight = nn.Parameter(packed, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C', h', w']."""
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(x, self.weight, self.bias, *self._how, "none", [], "")
        return out


@functools.cache
def _can_pack() -> bool:
    """Whether this build of PyTorch has oneDNN's operators, and they agree with the plain ones."""
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        with torch.inference_mode():
            conv, linear = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(3, 4)
            x = torch.linspace(-1, 1, 75).reshape(1, 3, 5, 5)
            y = x.permute(0, 2, 3, 1).contiguous()
            packed = PackedConv2d(conv)
            packed.pack(conv.weight)
            return bool(
                torch.allclose(packed(x), conv(x), atol=1e-5)
                and torch.allclose(PackedLinear(linear)(y), linear(y), atol=1e-5)
            )
    except (AttributeError, RuntimeError, TypeError):
        return False
