"""The same layers with fewer passes over memory, for our own copy of a model, inference only.

A diffusion model on a CPU spends a good part of its time outside its products: laying out weights again on every
call, writing into fresh memory, multiplying a constant prompt with constant weights. Before a model of ours is
filled with weights its modules are replaced by equal ones that do not. What is computed is the same up to rounding.
"""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliper.ops.compensation import times_transposed
from cliper.ops.parallel import ordered_map

__all__ = ["attend", "fix_prompt", "make_lean"]

_TYPICAL_ROWS = 1024  # for which a packed layout is chosen; any number can be multiplied
# Below this many keys PyTorch's own attention is as fast.
_MANY_KEYS = 1024
# A core takes this many queries of a head, and makes the scores of so many at a time: they stay in its cache.
_QUERIES, _ROWS = 1024, 256


def make_lean(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Replace modules of a model that has no weights yet by faster equivalents.

    Convolutions and group norms stay PyTorch's own, on contiguous memory: in channels-last memory oneDNN's convolution
    rounds worse, and PyTorch computes the moments of a group norm as sums of squares.

    Args:
        model: on the meta device, for inference only.
        device, dtype: of the weights that it will be given.
    """
    from diffusers.models.attention import FeedForward
    from diffusers.models.resnet import ResnetBlock2D

    if device.type != "cpu" or dtype not in (torch.float32, torch.bfloat16) or not _can_pack(dtype):
        return
    for name, layer in list(model.named_modules()):
        if type(layer) is nn.Linear:
            _replace(model, name, PackedLinear(layer))
    for name, block in list(model.named_modules()):  # these take over the linear layers of above
        if type(block) is ResnetBlock2D and LeanResnet.can_replace(block):
            _replace(model, name, LeanResnet(block))
        elif type(block) is FeedForward and LeanFeedForward.can_replace(block):
            _replace(model, name, LeanFeedForward(block))


def fix_prompt(unet: nn.Module, prompt: Tensor) -> None:
    """Let cross attention keep its keys and values of this one prompt in place of the weights they come from.

    Args:
        unet: on the meta device, about to be given its weights.
        prompt: [1, T, D], the only one that it will see.
    """
    from diffusers.models.attention import BasicTransformerBlock

    for block in list(unet.modules()):
        attn = block.attn2 if isinstance(block, BasicTransformerBlock) else None
        if attn is not None and attn.is_cross_attention and attn.to_k.bias is None and attn.to_v.bias is None:
            attn.to_k, attn.to_v = PromptProjection(attn.to_k, prompt), PromptProjection(attn.to_v, prompt)


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Attention output [B, H, T, d] without a whole map, of query [B, H, T, d], key and value [B, H, K, d]."""
    keys = key.shape[-2]
    if query.device.type != "cpu" or query.dtype != torch.float32 or keys < _MANY_KEYS:
        return F.scaled_dot_product_attention(query, key, value, scale=scale)
    batch, heads, tokens, width = query.shape
    out = query.new_empty(batch, tokens, heads, width).transpose(1, 2)
    parts = -(-tokens // _QUERIES)

    def work(index: int) -> None:
        b, h, part = index // parts // heads, index // parts % heads, index % parts
        times_key = times_transposed(key[b, h] * scale, _ROWS)
        times_value = times_transposed(value[b, h].T, _ROWS)
        for start in range(part * _QUERIES, min(tokens, (part + 1) * _QUERIES), _ROWS):
            mine = slice(start, min(start + _ROWS, (part + 1) * _QUERIES))
            scores = times_key(query[b, h, mine])
            out[b, h, mine] = times_value(torch.softmax(scores, -1, out=scores))

    for _ in ordered_map(work, batch * heads * parts):
        pass
    return out


class LeanResnet(nn.Module):
    """A diffusers ``ResnetBlock2D`` that applies activations and sums in place.

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
            and type(block.norm1) is type(block.norm2) is nn.GroupNorm
            and block.upsample is None
            and block.downsample is None
            and block.time_embedding_norm == "default"
            and not block.skip_time_act
            and block.output_scale_factor == 1
            and block.use_in_shortcut == (block.conv_shortcut is not None)
        )

    def forward(self, x: Tensor, temb: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
        """[B, C, h, w] -> [B, C', h, w] in contiguous memory, whatever that of the input."""
        x = x.contiguous()
        h: Tensor = self.conv1(F.silu(self.norm1(x), inplace=True))
        if temb is not None and self.time_emb_proj is not None:
            h += self.time_emb_proj(F.silu(temb))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h), inplace=True))
        h += x if self.conv_shortcut is None else self.conv_shortcut(x)
        return h


class LeanFeedForward(nn.Module):
    """A diffusers ``FeedForward`` with GEGLU, a thousand tokens at a time: its wide inside stays in the cache."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.net = block.net  # names of weights stay as they are

    @staticmethod
    def can_replace(block: Any) -> bool:
        """Whether it is GEGLU, dropout, a linear layer, and nothing more."""
        from diffusers.models.activations import GEGLU

        return len(block.net) == 3 and type(block.net[0]) is GEGLU and isinstance(block.net[1], nn.Dropout)

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        """[B, T, C] -> [B, T, C]."""
        parts = []
        for part in x.flatten(0, 1).split(1024):
            value, gate = self.net[0].proj(part).chunk(2, -1)
            parts.append(self.net[2](F.gelu(gate).mul_(value)))
        return torch.cat(parts).view(x.shape) if len(parts) > 1 else parts[0].view(x.shape)


class LeanVaeAttention:
    """Processor of the VAE's one attention layer: one head over all pixels, without its whole map."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """[B, C, h, w] -> [B, C, h, w]."""
        x = attn.group_norm(hidden_states).permute(0, 2, 3, 1).flatten(1, 2)
        query, key, value = (
            layer(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2) for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        mixed = attend(query, key, value, attn.scale).transpose(1, 2).flatten(2)
        out: Tensor = attn.to_out[0](mixed).unflatten(1, hidden_states.shape[-2:]).permute(0, 3, 1, 2)
        mended: Tensor = (out.contiguous() + hidden_states) / attn.rescale_output_factor
        return mended

    @staticmethod
    def can_replace(attn: Any) -> bool:
        """Whether the layer is as in Stable Diffusion's VAE."""
        others = (attn.spatial_norm, attn.norm_q, attn.norm_k)
        return attn.group_norm is not None and attn.residual_connection and all(o is None for o in others)


class PackedLinear(nn.Module):
    """A linear layer whose weight is kept in the order in which oneDNN reads it."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias

    def pack(self, weight: Tensor) -> None:
        """Take the weight [out, in]."""
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _TYPICAL_ROWS)
        self.weight = nn.Parameter(packed, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return out


class PromptProjection(nn.Module):
    """A linear layer that only ever sees one prompt: its output, in place of its weight."""

    def __init__(self, layer: nn.Linear, prompt: Tensor) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight = layer.weight
        self._prompt = prompt

    def pack(self, weight: Tensor) -> None:
        """Take the weight [out, in]; kept is [1, T, out]."""
        output = self._prompt.float() @ weight.to(self._prompt.device).float().T
        self.weight = nn.Parameter(output.to(self._prompt.dtype), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, in], the prompt B times -> [B, T, out]."""
        return self.weight.expand(len(x), -1, -1)


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, new)


@functools.cache
def _can_pack(dtype: torch.dtype) -> bool:
    """Whether this build of PyTorch has oneDNN's linear operator, and it agrees with the plain one on this processor.

    Many processors have no bfloat16, where oneDNN refuses it.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        with torch.inference_mode():
            layer = nn.Linear(3, 4, dtype=dtype)
            x = torch.linspace(-1, 1, 75, dtype=dtype).reshape(25, 3)
            packed = PackedLinear(layer)
            packed.pack(layer.weight)
            tolerance = 1e-5 if dtype == torch.float32 else 2e-2  # of bfloat16 the last bit, of values up to 2
            return bool(torch.allclose(packed(x), layer(x), atol=tolerance))
    except (AttributeError, RuntimeError, TypeError):
        return False
