"""Self-attention that returns its maps besides its output."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.kernels.switch import use_cpu_kernels

__all__ = [
    "AttentionAccumulator",
    "ablated_attention",
    "attend",
    "attend_by_affinity",
    "head_blocks",
    "merge_heads",
    "split_heads",
]

# Numbers in the maps of the heads that are computed together, 1 MB: they stay in a core's cache between operations.
_BLOCK_NUMBERS = 2**18


def head_blocks(heads: int, tokens: int) -> list[slice]:
    """Heads whose maps [h, N, N] are computed together on a CPU: few operations for small maps, no large memory."""
    size = max(1, _BLOCK_NUMBERS // tokens**2)
    return [slice(first, first + size) for first in range(0, heads, size)]


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, N, H * d] -> [B, H, N, d], a view."""
    batch, tokens, width = x.shape
    return x.view(batch, tokens, heads, width // heads).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[B, H, N, d] -> [B, N, H * d]."""
    batch, heads, tokens, dim = x.shape
    return x.transpose(1, 2).reshape(batch, tokens, heads * dim)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Scaled dot-product attention, without its map. All [B, H, N, d]."""
    return F.scaled_dot_product_attention(query, key, value)


def attend_by_affinity(affinity: Tensor, value: Tensor, prefix: int = 1) -> Tensor:
    """Attention of the patches by a given affinity, the same for all heads.

    The affinity has no class token: the class token attends to nothing, and no patch attends to it.

    Args:
        affinity: [B, P, P], rows sum to 1.
        value: [B, H, prefix + P, d].
        prefix: number of tokens before those of the patches, such as the class token.

    Returns:
        [B, H, prefix + P, d] in the dtype of ``value``; 0 for the tokens before the patches.
    """
    out = torch.zeros_like(value)
    out[:, :, prefix:] = affinity[:, None].to(value.dtype) @ value[:, :, prefix:]
    return out


class AttentionAccumulator:
    """Computes self-attention layer by layer and accumulates the sum of the softmax maps, per head.

    Only the sum is stored; each layer's map is freed after the layer. On the CPU heads are computed in blocks, so that
    a map stays in the cache between product, softmax, sum and product.

    Source: arXiv 2411.13836; ``docs/method.md``, section 2.

    Example:
        >>> attention = AttentionAccumulator()
        >>> q = torch.zeros(1, 2, 5, 4)
        >>> attention.attend(q, q, q).shape, attention.total.shape
        (torch.Size([1, 2, 5, 4]), torch.Size([1, 2, 5, 5]))
    """

    def __init__(self) -> None:
        self._total: Tensor | None = None

    @property
    def total(self) -> Tensor:
        """[B, H, N, M] float32, the sum of the maps so far.

        Raises:
            RuntimeError: no layer was computed yet.
        """
        if self._total is None:
            raise RuntimeError("expected at least one layer before the sum is read, got none")
        return self._total

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention output [B, H, N, d] in the dtype of ``value``; its map is added to :attr:`total`.

        Args:
            query: [B, H, N, d], not yet scaled.
            key: [B, H, M, d]; M, the number of tokens that are attended to, is N unless the context is larger.
            value: [B, H, M, d].
        """
        batch, heads, tokens, dim = query.shape
        if self._total is None:
            self._total = query.new_zeros((batch, heads, tokens, key.shape[2]), dtype=torch.float32)
        scale = dim**-0.5
        if query.dtype != torch.float32 or not use_cpu_kernels(query):
            attention = torch.softmax((query * scale) @ key.transpose(-1, -2), dim=-1, dtype=torch.float32)
            self._total += attention
            return attention.to(value.dtype) @ value
        out = value.new_empty((batch, tokens, heads, dim)).transpose(1, 2)
        for q, k, v, total, mixed in zip(query, key, value, self._total, out, strict=True):
            for block in head_blocks(heads, tokens):
                scores = torch.baddbmm(total[block], q[block], k[block].mT, beta=0, alpha=scale)
                torch.softmax(scores, dim=-1, out=scores)
                mixed[block] = scores @ v[block]
                total[block] += scores
        return out


def ablated_attention(
    kind: str, query: Tensor, key: Tensor, value: Tensor, context: Sequence[Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """The last layer's own attention, for the ablations.

    Args:
        kind: ``"vanilla"`` (q-k), ``"q-q"``, ``"k-k"``, ``"v-v"`` or ``"identity"``.
        query: [B, H, N, d], as are the other two; those that ``kind`` does not need are ignored.
        key: see ``query``.
        value: see ``query``.
        context: query, key and value, each [B, H, M, d], of the tokens that are attended to; None: the same tokens.
            ``"identity"`` ignores it.

    Returns:
        The output [B, H, N, d] in the dtype of ``value`` and the map, averaged over heads, [B, N, M] float32.
    """
    batch, heads, tokens, _ = value.shape
    if kind == "identity":
        eye = torch.eye(tokens, dtype=torch.float32, device=value.device)
        return value, eye.expand(batch, tokens, tokens)
    own, others = (query, key, value), context or (query, key, value)
    index, other_index = {"vanilla": (0, 1), "q-q": (0, 0), "k-k": (1, 1), "v-v": (2, 2)}[kind]
    left, right, mixed = own[index], others[other_index], others[2]
    summed = AttentionAccumulator()  # over heads instead of layers: their mean without storing [H, N, M]
    heads_out = [summed.attend(left[:, h : h + 1], right[:, h : h + 1], mixed[:, h : h + 1]) for h in range(heads)]
    return torch.cat(heads_out, dim=1), summed.total[:, 0] / heads
