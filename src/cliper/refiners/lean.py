"""The same layers with fewer passes over memory, for our own copy of a model, inference only.

A diffusion model on a CPU spends a good part of its time outside its products: laying out weights again on every
call, writing into fresh memory, multiplying a constant prompt with constant weights. Before a model of ours is
filled with weights its modules are replaced by equal ones that do not. What is computed is the same up to rounding.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliper.ops.compensation import times_transposed
from cliper.ops.linear import linear
from cliper.ops.parallel import ordered_map
from cliper.refiners.pool import Pool
from cliper.refiners.winograd import WinogradConv2d

__all__ = ["attend", "fix_prompt", "make_lean"]

_TYPICAL_ROWS = 1024  # for which a packed layout is chosen; any number can be multiplied
# Below this many keys PyTorch's own attention is as fast.
_MANY_KEYS = 1024
# A core takes this many queries of a head, and makes the scores of so many at a time: they stay in its cache.
_QUERIES, _ROWS = 1024, 256


def make_lean(
    model: nn.Module,
    device: torch.device,
    dtype: torch.dtype,
    pool: Pool,
    *,
    large: Callable[[str], bool],
    in_place: bool = False,
) -> None:
    """Replace, inside a model that has no weights yet, what has a leaner equal.

    Args:
        model: on the meta device; ours alone, for inference only.
        device, dtype: of the weights that it is about to be given.
        pool: where its memory comes from; models that never run at the same time can share one.
        large: whether the layer of that name sees large pictures.
        in_place: whether a residual block may write over its input, which is so if nothing else reads it.
    """
    from diffusers.models.attention import FeedForward
    from diffusers.models.downsampling import Downsample2D
    from diffusers.models.resnet import ResnetBlock2D

    if device.type != "cpu" or dtype not in (torch.float32, torch.bfloat16) or not _can_pack(dtype):
        return
    for name, old in list(model.named_modules()):
        new: nn.Module | None = None
        if type(old) is nn.Linear:
            new = PackedLinear(old)
        elif type(old) is nn.Conv2d and old.padding_mode == "zeros":
            if dtype == torch.float32 and large(name) and WinogradConv2d.can_replace(old):
                new = WinogradConv2d(old, pool)
            elif PointwiseConv2d.can_replace(old):
                new = PointwiseConv2d(old)
            else:
                new = PackedConv2d(old)
        if new is not None:
            _replace(model, name, new)
    for name, block in list(model.named_modules()):  # these take over what was replaced above
        if type(block) is ResnetBlock2D and LeanResnet.can_replace(block):
            _replace(model, name, LeanResnet(block, pool, in_place=in_place))
        elif type(block) is Downsample2D and dtype == torch.float32 and LeanDownsample.can_replace(block):
            _replace(model, name, LeanDownsample(block, pool))
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
    """A diffusers ``ResnetBlock2D`` that reuses its own memory.

    Args:
        block: for which :meth:`can_replace` holds; its layers are taken over.
        pool: where memory comes from.
        in_place: whether it may write over its input.
    """

    def __init__(self, block: Any, pool: Pool, *, in_place: bool) -> None:
        super().__init__()
        self.norm1, self.conv1, self.norm2, self.conv2 = block.norm1, block.conv1, block.norm2, block.conv2
        self.time_emb_proj, self.conv_shortcut = block.time_emb_proj, block.conv_shortcut
        self._pool, self._in_place = pool, in_place

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
        """[B, C, h, w] -> [B, C', h, w]."""
        shift: Tensor | None = None
        if temb is not None and self.time_emb_proj is not None:
            shift = self.time_emb_proj(F.silu(temb))
        shortcut = self.conv_shortcut
        if isinstance(self.conv1, WinogradConv2d) and isinstance(self.conv2, WinogradConv2d) and self.conv1.fits(x):
            hidden = self._pool.take("hidden", len(x), *x.shape[2:], self.conv1.out_channels).permute(0, 3, 1, 2)
            self.conv1.fused(x, norm=self.norm1, shift=shift, out=hidden)
            over = self._in_place and x.is_contiguous(memory_format=torch.channels_last)
            if shortcut is None:
                return self.conv2.fused(hidden, norm=self.norm2, residual=x, out=x if over else None)
            if isinstance(shortcut, PointwiseConv2d):
                return self.conv2.fused(hidden, norm=self.norm2, residual=x, shortcut=shortcut.channels)
            return self.conv2.fused(hidden, norm=self.norm2, residual=shortcut(x))
        h: Tensor = self.conv1(F.silu(self.norm1(x), inplace=True))
        if shift is not None:
            h += shift[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h), inplace=True))
        h += x if shortcut is None else shortcut(x)
        return h


class LeanDownsample(nn.Module):
    """A diffusers ``Downsample2D`` of the VAE, which pads below and to the right, into memory that is there."""

    def __init__(self, block: Any, pool: Pool) -> None:
        super().__init__()
        self.conv = block.conv
        self._pool = pool

    @staticmethod
    def can_replace(block: Any) -> bool:
        """Whether it pads by itself and then only convolves."""
        return bool(block.use_conv and block.padding == 0 and block.norm is None and block.name != "conv")

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        """[B, C, h, w] -> [B, C, h / 2, w / 2]."""
        batch, channels, height, width = x.shape
        padded = self._pool.take("hidden", batch, height + 1, width + 1, channels).permute(0, 3, 1, 2)
        padded[..., :height, :width] = x
        padded[..., height, :] = 0
        padded[..., width] = 0
        out: Tensor = self.conv(padded)
        return out


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
        mended: Tensor = (out + hidden_states) / attn.rescale_output_factor
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


class PointwiseConv2d(nn.Module):
    """A 1x1 convolution as a linear layer on channels that lie last."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.in_channels, self.out_channels = layer.in_channels, layer.out_channels
        self.weight, self.bias = layer.weight, layer.bias

    @staticmethod
    def can_replace(layer: nn.Conv2d) -> bool:
        """Whether it is one."""
        plain = layer.padding == (0, 0) and layer.groups == 1
        return layer.kernel_size == layer.stride == (1, 1) and plain

    def pack(self, weight: Tensor) -> None:
        """Take the weight [out, in, 1, 1]; kept is [out, in]."""
        self.weight = nn.Parameter(weight.detach()[:, :, 0, 0].clone(), requires_grad=False)

    def channels(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return linear(x, self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C', h, w]."""
        return self.channels(x.permute(0, 2, 3, 1).contiguous()).permute(0, 3, 1, 2)


class PackedConv2d(nn.Module):
    """A convolution whose weight is kept in the order in which oneDNN reads it."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.in_channels, self.out_channels = layer.in_channels, layer.out_channels
        self.weight, self.bias = layer.weight, layer.bias
        self._how: list[Any] = [layer.padding, layer.stride, layer.dilation, layer.groups]

    def pack(self, weight: Tensor) -> None:
        """Take the weight [out, in, h, w]."""
        packed = torch._C._nn.mkldnn_reorder_conv2d_weight(weight.detach().to_mkldnn(), *self._how)
        self.weight = nn.Parameter(packed, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C', h', w']."""
        how: list[Any] = [*self._how, "none", [], ""]
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(x, self.weight, self.bias, *how)
        return out


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, new)


@functools.cache
def _can_pack(dtype: torch.dtype) -> bool:
    """Whether this build of PyTorch has oneDNN's operators, and they agree with the plain ones on this processor.

    Of bfloat16 many processors know nothing, and oneDNN refuses it there.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        with torch.inference_mode():
            conv, layer = nn.Conv2d(3, 4, 3, padding=1, dtype=dtype), nn.Linear(3, 4, dtype=dtype)
            x = torch.linspace(-1, 1, 75, dtype=dtype).reshape(1, 3, 5, 5)
            tolerance = 1e-5 if dtype == torch.float32 else 2e-2  # of bfloat16 the last bit, of values up to 2
            y = x.permute(0, 2, 3, 1).contiguous()
            packed_conv, packed_layer = PackedConv2d(conv), PackedLinear(layer)
            packed_conv.pack(conv.weight)
            packed_layer.pack(layer.weight)
            return bool(
                torch.allclose(packed_conv(x), conv(x), atol=tolerance)
                and torch.allclose(packed_layer(y), layer(y), atol=tolerance)
            )
    except (AttributeError, RuntimeError, TypeError):
        return False
