"""Reading queries and keys of chosen self-attention layers out of a diffusers UNet.

Everything goes through diffusers' attention processors, which are put back afterwards. The UNet is left as soon
as the last wanted layer has been seen: nothing that comes after it could change what is wanted.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor

from cliper.errors import RefinerError
from cliper.kernels.attention import chunked_attention
from cliper.ops.attention import split_heads
from cliper.ops.compensation import QueryKey

__all__ = ["DEFAULT_LAYERS", "capture_query_key", "count_maps", "find_layers", "layer_names", "tokens_grid"]

DEFAULT_LAYERS = ("up_blocks.3.attentions.1", "up_blocks.3.attentions.0")
"""The method's layers, in its order."""

_PROCESSOR = ".processor"


class _StopForward(Exception):
    """Every wanted layer has been seen: no error, but the way out of the UNet."""


def layer_names(unet: Any) -> dict[str, str]:
    """The UNet's self-attention layers: readable name -> name of the processor.

    A transformer with one block is called by its own name, ``"up_blocks.3.attentions.1"``; of one with several,
    each block has a name, ``"up_blocks.1.attentions.0.transformer_blocks.2"``.
    """
    blocks = [name.removesuffix(".attn1" + _PROCESSOR) for name in unet.attn_processors]
    blocks = [name for name in blocks if not name.endswith(_PROCESSOR)]
    owners = [name.partition(".transformer_blocks.")[0] for name in blocks]
    return {
        (owner if owners.count(owner) == 1 else block): f"{block}.attn1{_PROCESSOR}"
        for owner, block in zip(owners, blocks, strict=True)
    }


def find_layers(unet: Any, wanted: Sequence[str] | None) -> dict[str, str]:
    """The processors of the wanted layers, in the wanted order; None means the method's two.

    Raises:
        RefinerError: the UNet has no such layer (the message lists those that it has), or the layers see the latents
            at different resolutions.
    """
    known = layer_names(unet)
    names = DEFAULT_LAYERS if wanted is None else tuple(wanted)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise RefinerError(
                f"refine_layers: this UNet has no self-attention layer {name!r}{hint}; "
                f"it has: {', '.join(known) or 'none'}"
            )
    if len(set(names)) < len(names):
        raise RefinerError(f"refine_layers: expected each layer once, got {', '.join(names)}")
    factors = {name: _downsampling(unet, known[name]) for name in names}
    if len(set(factors.values())) > 1:
        got = ", ".join(f"{name} (1/{2**count})" for name, count in factors.items())
        raise RefinerError(f"refine_layers: expected layers of one resolution, got {got} of the latents'")
    return {name: known[name] for name in names}


def count_maps(unet: Any, layers: Mapping[str, str]) -> int:
    """How many attention maps, one for each head, the layers have that :func:`find_layers` gave."""
    return sum(_attention(unet, place).heads for place in layers.values())


def tokens_grid(latent: tuple[int, int], tokens: int) -> tuple[int, int]:
    """The grid of a layer with that many tokens: the latents halved (rounding up) until they have as many.

    Raises:
        RefinerError: no halving has as many tokens.

    Example:
        >>> tokens_grid((48, 63), 768)
        (24, 32)
    """
    height, width = latent
    while height * width > tokens and max(height, width) > 1:
        height, width = (height + 1) // 2, (width + 1) // 2
    if height * width != tokens:
        raise RefinerError(
            f"a layer with {tokens} tokens fits no halving of {latent[0]}x{latent[1]} latents; "
            f"choose another layer (refine_layers)"
        )
    return height, width


@torch.inference_mode()
def capture_query_key(
    unet: Any, latents: Tensor, timestep: Tensor, prompt: Tensor, wanted: Sequence[str] | None
) -> list[list[QueryKey]]:
    """One step of the UNet, as far as needed.

    Args:
        unet: a ``UNet2DConditionModel``; its processors are the same afterwards, also after an error.
        latents: [B, 4, h, w] with noise.
        timestep: scalar.
        prompt: [1, T, D].
        wanted: names of layers as :func:`layer_names` has them; None means the method's two.

    Returns:
        For each of the B images, for each layer in the order of ``wanted``, its :class:`QueryKey`.

    Raises:
        RefinerError: no such layer.
    """
    layers = find_layers(unet, wanted)
    found: dict[str, QueryKey] = {}
    processors: dict[str, Any] = dict(unet.attn_processors)
    for place in processors:
        if _is_plain(unet, place):
            processors[place] = _ChunkedProcessor()
    for name, place in layers.items():
        if not _is_plain(unet, place):
            raise RefinerError(f"refine_layers: {name} is no plain self-attention; its maps cannot be read")
        processors[place] = _Capture(name, found, len(layers))
    with _processors(unet, processors), suppress(_StopForward):
        unet(latents, timestep, prompt.expand(len(latents), -1, -1), return_dict=False)
    stacks = [found[name] for name in layers]
    return [[QueryKey(s.query[i], s.key[i], s.scale) for s in stacks] for i in range(len(latents))]


@contextmanager
def _processors(unet: Any, processors: dict[str, Any]) -> Iterator[None]:
    before = dict(unet.attn_processors)
    try:
        unet.set_attn_processor(processors)
        yield
    finally:
        unet.set_attn_processor(before)


def _is_plain(unet: Any, place: str) -> bool:
    """Whether an attention is only projections and softmax, as all of Stable Diffusion's UNets are."""
    attn = _attention(unet, place)
    extras = (attn.group_norm, attn.spatial_norm, attn.norm_q, attn.norm_k, attn.norm_cross)
    return all(extra is None for extra in extras) and not (
        attn.added_kv_proj_dim or attn.residual_connection or attn.fused_projections
    )


def _attention(unet: Any, place: str) -> Any:
    return unet.get_submodule(place.removesuffix(_PROCESSOR))


def _downsampling(unet: Any, place: str) -> int:
    """How many times the latents were halved where the processor of that name sees them."""
    part, index = place.split(".")[:2]
    downs, ups = (
        [getattr(b, f"{way}samplers", None) is not None for b in blocks]
        for way, blocks in (("down", unet.down_blocks), ("up", unet.up_blocks))
    )
    if part == "down_blocks":
        return sum(downs[: int(index)])
    return sum(downs) - (sum(ups[: int(index)]) if part == "up_blocks" else 0)


class _ChunkedProcessor:
    """Attention of a diffusers block, without ever holding a whole attention map."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key = (
            split_heads(layer(x), attn.heads) for layer, x in ((attn.to_q, hidden_states), (attn.to_k, context))
        )
        self.on_query_key(query, key, attn.scale)
        value = split_heads(attn.to_v(context), attn.heads)
        if attn.upcast_attention:
            # Stable Diffusion 2.1 overflows in float16 here.
            mixed = chunked_attention(query.float(), key.float(), value.float(), attn.scale).to(value.dtype)
        else:
            mixed = chunked_attention(query, key, value, attn.scale)
        out: Tensor = attn.to_out[0](mixed.transpose(1, 2).flatten(2))
        return out / attn.rescale_output_factor if attn.rescale_output_factor != 1 else out

    def on_query_key(self, query: Tensor, key: Tensor, scale: float) -> None:
        """Called with queries and keys [B, H, T, d] before they are used."""


class _Capture(_ChunkedProcessor):
    """Keeps the queries and keys of a layer, and leaves the UNet if it was the last wanted."""

    def __init__(self, name: str, found: dict[str, QueryKey], count: int) -> None:
        self._name, self._found, self._count = name, found, count

    def on_query_key(self, query: Tensor, key: Tensor, scale: float) -> None:
        """Keep them.

        Raises:
            _StopForward: nothing more is wanted.
        """
        self._found[self._name] = QueryKey(query, key, scale)
        if len(self._found) == self._count:
            raise _StopForward
