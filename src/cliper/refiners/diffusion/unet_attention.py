"""Read queries and keys of chosen self-attention layers of a diffusers UNet.

Everything goes through diffusers' attention processors, which are restored afterwards. The UNet stops at the last of
the chosen layers: what comes after it cannot change the result.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cliper.errors import RefinerError
from cliper.kernels.attention import chunked_attention
from cliper.ops.attention import split_heads
from cliper.ops.compensation import QueryKey

__all__ = ["UPPER_BLOCKS", "capture_query_key", "count_maps", "find_layers", "layer_names", "tokens_grid"]

UPPER_BLOCKS = "upper_blocks"
"""The name of the last two upward blocks with self-attention of any UNet."""

_SELF_ATTENTION = ".attn1.processor"


class _StopForward(Exception):
    """Raised inside the UNet after the last chosen layer, to end the forward pass."""


def layer_names(unet: Any) -> dict[str, str]:
    """The UNet's self-attention layers: short name -> name of the module.

    A transformer with one block is called by its own name, ``"up_blocks.3.attentions.1"``; of one with several,
    each block has a name, ``"up_blocks.1.attentions.0.transformer_blocks.2"``.
    """
    names = [name for name in unet.attn_processors if name.endswith(_SELF_ATTENTION)]
    blocks = [name.removesuffix(_SELF_ATTENTION) for name in names]
    owners = [block.partition(".transformer_blocks.")[0] for block in blocks]
    return {
        (owner if owners.count(owner) == 1 else block): f"{block}.attn1"
        for owner, block in zip(owners, blocks, strict=True)
    }


def find_layers(unet: Any, wanted: Sequence[str] | None) -> dict[str, str]:
    """The wanted layers as :func:`layer_names` has them, in the wanted order.

    Args:
        unet: a ``UNet2DConditionModel``.
        wanted: names of layers, or of blocks such as ``"up_blocks.2"``, which mean all of their layers, the last first;
            ``"upper_blocks"`` are the last two upward blocks. None means the method's layers: the second and the first
            of the last upward block. Only blocks with self-attention count: Stable Diffusion XL has none in its last.

    Raises:
        RefinerError: the UNet has no such layer or block (the message lists its layers).
    """
    known = layer_names(unet)
    last = max((int(name.split(".")[1]) for name in known if name.startswith("up_blocks.")), default=0)
    given = (f"up_blocks.{last}.attentions.1", f"up_blocks.{last}.attentions.0") if wanted is None else tuple(wanted)
    if UPPER_BLOCKS in given:
        at = given.index(UPPER_BLOCKS)
        given = (*given[:at], f"up_blocks.{last}", f"up_blocks.{last - 1}", *given[at + 1 :])
    names: list[str] = []
    for name in given:
        members = [name] if name in known else [layer for layer in known if layer.startswith(f"{name}.")][::-1]
        if not members:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise RefinerError(
                f"refine_layers: this UNet has no self-attention layer {name!r}{hint}; "
                f"it has: {', '.join(known) or 'none'}"
            )
        names += members
    if len(set(names)) < len(names):
        raise RefinerError(f"refine_layers: expected each layer once, got {', '.join(names)}")
    return {name: known[name] for name in names}


def count_maps(unet: Any, layers: Mapping[str, str]) -> int:
    """The number of attention maps, one for each head, of layers from :func:`find_layers`."""
    return sum(unet.get_submodule(module).heads for module in layers.values())


def tokens_grid(latent_size: tuple[int, int], tokens: int) -> tuple[int, int]:
    """The grid of a layer with that many tokens: the latents halved (rounding up) until they have as many.

    Example:
        >>> tokens_grid((48, 63), 768)
        (24, 32)
    """
    height, width = latent_size
    while height * width > tokens:
        height, width = (height + 1) // 2, (width + 1) // 2
    return height, width


@torch.inference_mode()
def capture_query_key(
    unet: Any,
    latents: Tensor,
    timestep: Tensor,
    prompt: Tensor,
    wanted: Sequence[str] | None,
    added: Mapping[str, Tensor] | None = None,
) -> list[list[QueryKey]]:
    """Run one step of the UNet up to the last wanted layer.

    Args:
        unet: a ``UNet2DConditionModel``; its processors are the same afterwards, also after an error.
        latents: [B, 4, h, w] with noise.
        timestep: scalar.
        prompt: [1, T, D].
        wanted: as for :func:`find_layers`.
        added: further inputs of Stable Diffusion XL's UNet, each [B, n].

    Returns:
        For each of the B images, for each layer in the wanted order, its :class:`QueryKey`.

    Raises:
        RefinerError: no such layer, or its attention is more than projections and softmax.
    """
    layers = find_layers(unet, wanted)
    captured: dict[str, QueryKey] = {}

    def capture(name: str, query: Tensor, key: Tensor, scale: float) -> None:
        captured[name] = QueryKey(query, key, scale)
        if len(captured) == len(layers):
            raise _StopForward

    before = dict(unet.attn_processors)
    processors = {
        name: _ChunkedProcessor() if _is_plain(unet, name.removesuffix(".processor")) else processor
        for name, processor in before.items()
    }
    for name, module in layers.items():
        if not _is_plain(unet, module):
            raise RefinerError(f"refine_layers: {name} normalises its queries and keys; choose another layer")
        processors[f"{module}.processor"] = _ChunkedProcessor(partial(capture, name))
    try:
        unet.set_attn_processor(processors)
        with suppress(_StopForward):
            unet(latents, timestep, prompt.expand(len(latents), -1, -1), added_cond_kwargs=added, return_dict=False)
    finally:
        unet.set_attn_processor(before)
    batches = [captured[name] for name in layers]
    return [[QueryKey(b.query[i], b.key[i], b.scale) for b in batches] for i in range(len(latents))]


def _is_plain(unet: Any, module: str) -> bool:
    """Whether an attention is only projections and softmax, as in all of Stable Diffusion's UNets."""
    attn = unet.get_submodule(module)
    extras = (attn.group_norm, attn.spatial_norm, attn.norm_q, attn.norm_k, attn.norm_cross)
    return all(extra is None for extra in extras) and not (attn.added_kv_proj_dim or attn.residual_connection)


class _ChunkedProcessor:
    """Attention of a diffusers block, without a whole attention map in memory.

    Args:
        on_query_key: called with query and key [B, H, T, d] and the scale before they are used.
    """

    def __init__(self, on_query_key: Callable[[Tensor, Tensor, float], None] | None = None) -> None:
        self.on_query_key = on_query_key

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = split_heads(attn.to_q(hidden_states), attn.heads)
        key = split_heads(attn.to_k(context), attn.heads)
        if self.on_query_key is not None:
            self.on_query_key(query, key, attn.scale)
        value = split_heads(attn.to_v(context), attn.heads)
        if attn.upcast_attention:
            # Stable Diffusion 2.1 overflows in float16 here.
            mixed = chunked_attention(query.float(), key.float(), value.float(), attn.scale).to(value.dtype)
        else:
            mixed = chunked_attention(query, key, value, attn.scale)
        out: Tensor = attn.to_out[0](mixed.transpose(1, 2).flatten(2))
        return out
