"""Early-layer fusion: the earlier layers' attention, made doubly stochastic, in place of the last layer's.

Source: arXiv 2411.13836, "early-layer fusion"; ``docs/method.md``, section 2.

The published code rewrites the whole [H, N, N] stack several times for every layer. Here the stack is not
changed: after any number of rounds of "divide by column sums, then by row sums" it is still
``diag(row) @ M @ diag(column)``, so a round is two matrix-vector products, which also give the column means
that are subtracted next.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cliper.kernels.switch import use_cpu_kernels
from cliper.ops.attention import head_blocks
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
    attention, columns, sums = sinkhorn.attention()
    return attention.mul_(columns.unsqueeze(-2)).div_(sums)


@torch.no_grad()
def fuse_values(
    total: Tensor, values: Sequence[Tensor], layers: Sequence[int], depth: int, recipe: Recipe
) -> tuple[Tensor, Tensor]:
    """Multiply the values of the wanted layers by the fused attention of each layer.

    Args:
        total: [H, N, N] float32, the sum of the earlier layers' attention maps; not changed.
        values: for each of the layers [H, N, d], the last layer's value projection of its features.
        layers: which layers, counted from 0.
        depth: how many layers the tower has.
        recipe: see :class:`Recipe`.

    Returns:
        The mixed values [len(layers), H, N, d], and the attention of the tower's last layer, averaged over
        heads, [N, N] float32.
    """
    heads, tokens, _ = total.shape
    position = {layer: index for index, layer in enumerate(layers)}
    # In memory by token, so that merging the heads later copies nothing.
    mixed = values[0].new_empty(len(values), tokens, heads, values[0].shape[-1]).transpose(1, 2)

    exported: list[Tensor] = []

    mean = total.new_zeros(tokens, tokens)
    for block in head_blocks(heads, tokens) if use_cpu_kernels(total) else [slice(None)]:
        sinkhorn = _Sinkhorn(total[block], recipe)
        for layer in range(depth):
            sinkhorn.step()
            if layer in position or layer == depth - 1:
                attention, columns, sums = sinkhorn.attention()
            if layer in position:
                # Rows and columns are scaled in the values, which are narrower than the map.
                value = values[position[layer]][block] * columns.unsqueeze(-1)
                product = attention.to(value.dtype) @ value
                if torch.compiler.is_exporting():  # a part of a tensor that is written becomes a slow scatter
                    exported.append(product / sums)
                else:
                    torch.div(product, sums, out=mixed[position[layer], block])
        mean += attention.mul_(columns.unsqueeze(-2)).div_(sums).sum(0)
    return torch.stack(exported) if exported else mixed, mean / heads


class _Sinkhorn:
    """Sinkhorn's normalisation ``diag(row) @ total @ diag(column)``, one round per step; ``total`` is not changed."""

    def __init__(self, total: Tensor, recipe: Recipe) -> None:
        self._total = total
        self._transposed = total.transpose(-1, -2).contiguous()
        self._recipe = recipe
        self._row = self._row_sums = self._column = torch.ones_like(total[..., 0])
        self._column_sums = _left(self._row, total)  # of diag(row) @ total
        self._scratch = torch.empty_like(total)

    def step(self) -> None:
        """Divide by the column sums, then by the row sums."""
        self._column = self._column_sums.clamp_min_(_EPS).reciprocal_()
        self._row_sums = _right(self._total, self._column).clamp_min_(_EPS)
        self._row = self._row_sums.reciprocal()
        self._column_sums = _left(self._row, self._total)

    def attention(self) -> tuple[Tensor, Tensor, Tensor]:
        """The symmetric map minus each column's center, clamped at 0, up to factors of its columns and rows.

        Returns:
            The map [..., N, N], which the next call overwrites; the factor of each column [..., N]; the sums of the
            map's rows, with these factors, [..., N, 1], never 0. The attention is ``map * columns / sums``.
        """
        row, inverse, column, out = self._row, self._row_sums, self._column, self._scratch
        # With A = diag(row) @ total @ diag(column): entry (i, j) of A + A^T, divided by row[i] * row[j]. The factor 2
        # cancels when rows are divided by their sums.
        ratio = column * inverse
        torch.mul(self._total, ratio[..., None, :], out=out)
        out.addcmul_(self._transposed, ratio[..., :, None])
        weight = self._recipe.center_weight
        if self._recipe.center == "mean":
            # Column means of A + A^T: A's column sums are known, and A's row sums are 1.
            center = (column * self._column_sums).add_(1).mul_(inverse)
            weight /= out.shape[-1]
        else:
            center = (out * row[..., :, None]).amax(-2)
        out.addcmul_(inverse[..., :, None], center[..., None, :], value=-weight).relu_()
        return out, row, _right(out, row).clamp_min_(_EPS).unsqueeze(-1)


def _left(vector: Tensor, matrix: Tensor) -> Tensor:
    return vector @ matrix if matrix.dim() == 2 else (vector.unsqueeze(-2) @ matrix).squeeze(-2)


def _right(matrix: Tensor, vector: Tensor) -> Tensor:
    return matrix @ vector if matrix.dim() == 2 else (matrix @ vector.unsqueeze(-1)).squeeze(-1)
