"""Early-layer fusion: the earlier layers' attention, made doubly stochastic, in place of the last layer's.

Source: arXiv 2411.13836, "early-layer fusion"; ``docs/method.md``, section 2.

The published code rewrites the whole [H, N, N] stack several times for every layer. Here the stack is not
changed: after any number of rounds of "divide by column sums, then by row sums" it is still
``diag(row) @ M @ diag(column)``, so a round is two matrix-vector products, which also give the column means
that are subtracted next.
"""

from collections.abc import Sequence
from threading import Condition

import torch
from torch import Tensor

from cliper.kernels.linear import linear
from cliper.kernels.switch import use_cpu_kernels
from cliper.kernels.threads import threaded_map
from cliper.ops.recipes import Recipe

__all__ = ["fuse_values", "fused_attention"]

# Smaller than any positive sum of softmax maps; avoids 0 / 0 in a column that no patch attends to.
_EPS = 1e-30


@torch.no_grad()
def fused_attention(total: Tensor, rounds: int, recipe: Recipe | None = None) -> Tensor:
    """The fused attention of layer number ``rounds``.

    Args:
        total: [..., N, N] float32, non-negative, the sum of the earlier layers' attention maps.
        rounds: how often columns, then rows are normalised; layer l (counted from 1) uses l rounds.
        recipe: see :class:`Recipe`.

    Returns:
        [..., N, N]; rows sum to 1 (or are 0 where no value is above its column's center).

    Example:
        >>> fused_attention(torch.eye(3) + 0.1, rounds=2).shape
        torch.Size([3, 3])
    """
    sinkhorn = _Sinkhorn(total, recipe or Recipe())
    for _ in range(rounds):
        sinkhorn.step()
    attention, sums = sinkhorn.attention()
    return attention.div_(sums)


@torch.no_grad()
def fuse_values(
    total: Tensor, values: Tensor, layers: Sequence[int], depth: int, recipe: Recipe
) -> tuple[Tensor, Tensor]:
    """Multiply the values of the wanted layers by the fused attention of each layer.

    Args:
        total: [H, N, N] float32, the sum of the earlier layers' attention maps; not changed.
        values: [len(layers), H, N, d], the last layer's value projection of those layers' features.
        layers: which layers, counted from 0.
        depth: how many layers the tower has.
        recipe: see :class:`Recipe`.

    Returns:
        The mixed values [len(layers), H, N, d], and the attention of the tower's last layer, averaged over
        heads, [N, N] float32.
    """
    heads, tokens, _ = total.shape
    position = {layer: index for index, layer in enumerate(layers)}
    values = values.contiguous()
    count, _, _, dim = values.shape
    # In memory by token, so that merging the heads later copies nothing.
    mixed = values.new_empty(count, tokens, heads, dim).transpose(1, 2)

    def fuse(block: int | slice) -> Tensor:
        sinkhorn = _Sinkhorn(total[block], recipe)
        for layer in range(depth):
            sinkhorn.step()
            if layer in position:
                # Rows are normalised after the product, which is narrower than the map.
                attention, sums = sinkhorn.attention()
                mixed[position[layer], block] = _mix(attention, values[position[layer], block]).div_(sums)
        if depth - 1 not in position:
            attention, sums = sinkhorn.attention()
        last = attention.div_(sums)
        return last if last.dim() == 2 else last.sum(0)

    if not use_cpu_kernels(total):
        return mixed, fuse(slice(None)) / heads
    mean = total.new_zeros(tokens, tokens)
    changed, added = Condition(), 0

    def fuse_and_add(head: int) -> None:
        nonlocal added
        last = None
        try:
            last = fuse(head)
        finally:
            with changed:  # heads are added in order, so that the sum is rounded in the same way every time
                changed.wait_for(lambda: added == head)
                if last is not None:
                    mean.add_(last)
                added += 1
                changed.notify_all()

    for _ in threaded_map(fuse_and_add, heads):
        pass
    return mixed, mean / heads


def _mix(attention: Tensor, value: Tensor) -> Tensor:
    attention = attention.to(value.dtype)
    return linear(attention, value.t()) if value.dim() == 2 else attention @ value


class _Sinkhorn:
    """Sinkhorn's normalisation ``diag(row) @ total @ diag(column)``, one round per step; ``total`` is not changed."""

    def __init__(self, total: Tensor, recipe: Recipe) -> None:
        self._total = total
        self._transposed = total.transpose(-1, -2).contiguous()
        self._recipe = recipe
        self._row = torch.ones_like(total[..., 0])
        self._column = self._row
        self._column_sums = _left(self._row, total)  # of diag(row) @ total
        self._scratch = torch.empty_like(total), torch.empty_like(total)

    def step(self) -> None:
        """Divide by the column sums, then by the row sums."""
        self._column = 1 / self._column_sums.clamp_min(_EPS)
        self._row = 1 / _right(self._total, self._column).clamp_min(_EPS)
        self._column_sums = _left(self._row, self._total)

    def attention(self) -> tuple[Tensor, Tensor]:
        """The symmetric map minus each column's center, clamped at 0, and its row sums [..., N, 1], never 0.

        The next call overwrites the map.
        """
        row, column = self._row, self._column
        both, other = self._scratch
        weight, size = self._recipe.center_weight, both.shape[-1]
        if self._recipe.center == "mean":
            # Column means of A + A^T: A's column sums are known, and A's row sums are 1.
            start = (column * self._column_sums + 1) * (-weight / size)
        else:
            start = torch.zeros_like(column)
        # Twice the symmetric map, A + A^T: the factor cancels when rows are divided by their sums.
        torch.mul(self._total, row[..., :, None], out=both)
        torch.addcmul(start[..., None, :], both, column[..., None, :], out=both)
        torch.mul(self._transposed, column[..., :, None], out=other)
        both.addcmul_(other, row[..., None, :])
        if self._recipe.center == "peak":
            both.sub_(weight * both.amax(-2, keepdim=True))
        both.relu_()
        return both, both.sum(-1, keepdim=True).clamp_min_(_EPS)


def _left(vector: Tensor, matrix: Tensor) -> Tensor:
    return vector @ matrix if matrix.dim() == 2 else (vector.unsqueeze(-2) @ matrix).squeeze(-2)


def _right(matrix: Tensor, vector: Tensor) -> Tensor:
    return matrix @ vector if matrix.dim() == 2 else (matrix @ vector.unsqueeze(-1)).squeeze(-1)
