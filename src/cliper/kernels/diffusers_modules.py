"""Modules of diffusers with fewer passes over memory, for inference.

On a CPU a diffusion model spends much of its time outside its products: packing weights on every call, writing to
newly allocated memory, multiplying a constant prompt by constant weights. The modules here avoid that and compute the
same up to rounding. They replace modules of a model on the meta device, before it is given its weights.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliper.kernels.attention import chunked_attention
from cliper.kernels.linear import PackedLinear
from cliper.kernels.switch import kernels_enabled

__all__ = ["precompute_prompt", "replace_modules"]


def replace_modules(model: nn.Module) -> None:
    """Replace modules of a model on the meta device by faster equivalents, in place.

    Convolutions and group norms stay PyTorch's own, on contiguous memory: in channels-last memory oneDNN's convolution
    rounds worse, and PyTorch computes the moments of a group norm as sums of squares.
    """
    from diffusers.models.attention import FeedForward
    from diffusers.models.resnet import ResnetBlock2D

    for name, layer in list(model.named_modules()):
        if type(layer) is nn.Linear:
            _replace(model, name, PackedLinear(layer))
    for name, block in list(model.named_modules()):  # these use the linear layers replaced above
        if type(block) is ResnetBlock2D and FusedResnetBlock.supports(block):
            _replace(model, name, FusedResnetBlock(block))
        elif type(block) is FeedForward and ChunkedFeedForward.supports(block):
            _replace(model, name, ChunkedFeedForward(block))
    encoder = getattr(model, "encoder", None)  # of an autoencoder
    for attn in getattr(getattr(encoder, "mid_block", None), "attentions", ()):
        if attn is not None and ChunkedVaeAttention.supports(attn):
            attn.set_processor(ChunkedVaeAttention())


def precompute_prompt(unet: nn.Module, prompt: Tensor) -> None:
    """Store the keys and values of cross attention for one prompt, in place of the weights that they come from.

    On any device. Nothing happens with ``CLIPER_KERNELS=0``.

    Args:
        unet: on the meta device, about to be given its weights.
        prompt: [1, T, D], the only one that the UNet will be called with.
    """
    if not kernels_enabled():
        return
    from diffusers.models.attention import BasicTransformerBlock

    for block in list(unet.modules()):
        attn = block.attn2 if isinstance(block, BasicTransformerBlock) else None
        if attn is not None and attn.is_cross_attention and attn.to_k.bias is None and attn.to_v.bias is None:
            attn.to_k, attn.to_v = ConstantProjection(attn.to_k, prompt), ConstantProjection(attn.to_v, prompt)


class FusedResnetBlock(nn.Module):
    """A diffusers ``ResnetBlock2D`` that applies activations and sums in place.

    Args:
        block: one that :meth:`supports` accepts; its layers are used.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.conv1, self.norm2, self.conv2 = block.norm1, block.conv1, block.norm2, block.conv2
        self.time_emb_proj, self.conv_shortcut = block.time_emb_proj, block.conv_shortcut

    @staticmethod
    def supports(block: Any) -> bool:
        """Whether the block is one of Stable Diffusion's: SiLU, additive time embedding, no resizing, no scaling."""
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


class ChunkedFeedForward(nn.Module):
    """A diffusers ``FeedForward`` with GEGLU, 1024 tokens at a time: its hidden activations stay in the cache."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.net = block.net  # the names of weights do not change

    @staticmethod
    def supports(block: Any) -> bool:
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


class ChunkedVaeAttention:
    """Processor of the VAE's one attention layer: one head over all pixels, without a whole attention map."""

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
        mixed = chunked_attention(query, key, value, attn.scale).transpose(1, 2).flatten(2)
        out: Tensor = attn.to_out[0](mixed).unflatten(1, hidden_states.shape[-2:]).permute(0, 3, 1, 2)
        result: Tensor = (out.contiguous() + hidden_states) / attn.rescale_output_factor
        return result

    @staticmethod
    def supports(attn: Any) -> bool:
        """Whether the layer is one of Stable Diffusion's VAE."""
        others = (attn.spatial_norm, attn.norm_q, attn.norm_k)
        return attn.group_norm is not None and attn.residual_connection and all(o is None for o in others)


class ConstantProjection(nn.Module):
    """A linear layer for one constant input, the prompt: it stores its output in place of its weight."""

    def __init__(self, layer: nn.Linear, prompt: Tensor) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight = layer.weight
        self._prompt = prompt

    def load_weight(self, weight: Tensor) -> None:
        """Compute and store the output [1, T, out] for the weight [out, in]."""
        output = self._prompt.float() @ weight.to(self._prompt.device).float().T
        self.weight = nn.Parameter(output.to(self._prompt.dtype), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, in], the prompt repeated B times -> [B, T, out]."""
        return self.weight.expand(len(x), -1, -1)


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, new)
