"""Fine-grained compensation: class maps sharpened by a chain of self-attention maps.

The method multiplies n normalised maps [T, T] and then the class maps: ``A_1 @ ... @ A_n @ x``. The product
is associative, so here it is taken from the right: n products [T, T] x [T, C] instead of n of [T, T] x
[T, T], and only one map exists at a time. :func:`compensate_query_key` goes one step further and
takes queries and keys, so that even that one map is computed and used in blocks of rows.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.errors import SettingsError, ShapeError
from cliper.kernels.linear import packed_linear

__all__ = ["MODES", "QueryKey", "compensate", "compensate_query_key", "resize_query_key"]

MODES = ("chain", "mean", "selected")

EPS = 1e-5  # the method's constant, added to column maxima and to row sums
_MIN_DIVISOR = 1e-30  # of rows and columns without any value

# A map is computed in blocks of rows of about 4 MB, so that the passes over a block run in the cache. (Blocks of 1 or
# 2 MB are a tenth slower; one block per core in parallel is slower by a third.)
BLOCK_BYTES = 4 << 20
# A map up to this size is stored between its two passes; a larger one is computed twice. At 64x64 it is 64 MB; at
# 128x128 it would be 1 GB.
MAP_BYTES = 256 << 20


class QueryKey(NamedTuple):
    """Queries and keys of one attention layer; its maps are ``softmax(query @ key^T * scale)``.

    Args:
        query: [H, T, d].
        key: [H, T, d].
        scale: multiplies the products before the softmax.
    """

    query: Tensor
    key: Tensor
    scale: float


def resize_query_key(layer: QueryKey, grid: tuple[int, int], size: tuple[int, int]) -> QueryKey:
    """Queries and keys of another resolution, resized bilinearly; the same where it is already that.

    Args:
        layer: with T tokens.
        grid: (S, S') with S * S' = T.
        size: the grid that is wanted.
    """
    if grid == size:
        return layer
    query, key = (
        F.interpolate(tokens.mT.unflatten(-1, grid).float(), size=size, mode="bilinear", align_corners=False)
        for tokens in layer[:2]
    )
    dtype = layer.query.dtype
    return QueryKey(query.flatten(2).mT.to(dtype), key.flatten(2).mT.to(dtype), layer.scale)


@torch.no_grad()
def compensate(
    maps: Tensor,
    attention: Tensor | Iterable[Tensor],
    threshold: float,
    mode: str = "chain",
    map_index: int = 0,
    *,
    size: tuple[int, int] | None = None,
    balance: int = 0,
) -> Tensor:
    """Class maps refined by self-attention maps (``docs/method.md``, section 3).

    Each map is divided by its column maxima (+1e-5), set to 0 below ``threshold``, and divided by its row sums
    (+1e-5). The class maps, resized to (S, S') bilinearly, are multiplied by the product of all of them
    (``"chain"``), by their mean, or by one (``"selected"``). Inference only: no gradient is recorded.

    Args:
        maps: [C, h, w] or [B, C, h, w], floating point. All B share the attention.
        attention: n maps [S*S', S*S'], each row a softmax, layer by layer and head by head; a tensor
            [n, S*S', S*S'] or any iterable. A sequence is read from its end, one map at a time.
        threshold: 0 to 1.
        mode: ``"chain"``, ``"mean"`` or ``"selected"``.
        map_index: index of the map for ``"selected"``.
        size: (S, S') of the attention's grid; None for a square one.
        balance: number of rounds that make each thresholded map doubly stochastic, in place of the one division by row
            sums: in each round columns and then rows are divided by their sums (Sinkhorn and Knopp, 1967).

    Returns:
        [C, S, S'] or [B, C, S, S'], dtype and device of ``maps``; float32 is used in between for half types.

    Raises:
        ShapeError: maps that are not square, differ in size, or do not fit ``size``; no maps at all.
        SettingsError: an unknown mode, a threshold out of range, a ``map_index`` out of range.

    Example:
        >>> compensate(torch.rand(3, 4, 4), torch.rand(2, 64, 64).softmax(-1), 0.1).shape
        torch.Size([3, 8, 8])
    """
    if isinstance(attention, Tensor):
        if attention.ndim != 3:
            raise ShapeError(f"attention: expected [n, S*S, S*S], got {list(attention.shape)}")
        steps: Sequence[Tensor] = attention.unbind(0)
    else:
        steps = attention if isinstance(attention, Sequence) else list(attention)
    tokens = _tokens(steps[0]) if len(steps) else 0

    def apply(index: int, x: Tensor) -> Tensor:
        if _tokens(steps[index]) != tokens:
            raise ShapeError(f"attention: expected maps of one size, got {tokens} and {_tokens(steps[index])} tokens")
        return _apply_map(x, steps[index], threshold, balance)

    return _compensate(maps, len(steps), tokens, apply, threshold, mode, map_index, size)


@torch.no_grad()
def compensate_query_key(
    maps: Tensor,
    layers: Sequence[QueryKey],
    threshold: float,
    mode: str = "chain",
    map_index: int = 0,
    *,
    size: tuple[int, int] | None = None,
    balance: int = 0,
) -> Tensor:
    """:func:`compensate` from queries and keys, without storing a stack of attention maps.

    Beyond its result this needs at most one map [T, T] in float32, and beyond 8192 tokens a few rows of it.

    Args:
        maps: as for :func:`compensate`.
        layers: for each layer its :class:`QueryKey`, any floating dtype; the maps are computed in float32.
        threshold, mode, map_index, size, balance: as for :func:`compensate`.

    Returns:
        As :func:`compensate`.

    Raises:
        ShapeError: as :func:`compensate`; queries and keys that do not fit.
        SettingsError: as :func:`compensate`.
    """
    heads: list[QueryKey] = []
    for query, key, scale in layers:
        if query.ndim != 3 or query.shape != key.shape:
            raise ShapeError(f"heads: expected query and key [H, T, d], got {list(query.shape)}, {list(key.shape)}")
        heads.extend(QueryKey(q, k, scale) for q, k in zip(query, key, strict=True))
    counts = sorted({len(h.query) for h in heads})
    if len(counts) > 1:
        raise ShapeError(f"attention: expected layers of one resolution, got {' and '.join(map(str, counts))} tokens")
    tokens = counts[0] if counts else 0
    keep = None
    if heads and tokens * tokens * 4 <= MAP_BYTES:
        keep = heads[0].query.new_empty(tokens, tokens, dtype=torch.float32)

    def apply(index: int, x: Tensor) -> Tensor:
        return _apply_head(x, heads[index], threshold, keep, balance)

    return _compensate(maps, len(heads), tokens, apply, threshold, mode, map_index, size)


def _compensate(
    maps: Tensor,
    count: int,
    tokens: int,
    apply: Callable[[int, Tensor], Tensor],
    threshold: float,
    mode: str,
    map_index: int,
    size: tuple[int, int] | None,
) -> Tensor:
    """Common part of both public functions: checks, resizing, and the order in which maps are applied."""
    if mode not in MODES:
        raise SettingsError(f"mode: expected one of {', '.join(MODES)}, got {mode!r}")
    if not 0 <= threshold <= 1:
        raise SettingsError(f"threshold: expected a number from 0 to 1, got {threshold!r}")
    if not count:
        raise ShapeError("attention: expected at least one map, got none")
    if mode == "selected" and not -count <= map_index < count:
        raise SettingsError(f"map_index: there are {count} attention maps, 0 to {count - 1}; got {map_index}")
    if maps.ndim not in (3, 4) or not maps.is_floating_point() or not maps.numel():
        raise ShapeError(f"maps: expected [C, h, w] or [B, C, h, w] of floats, got {list(maps.shape)} {maps.dtype}")
    grid = _grid(tokens, size)
    planes = maps.reshape(-1, 1, *maps.shape[-2:]).float()
    planes = F.interpolate(planes, size=grid, mode="bilinear", align_corners=False)
    x = planes.flatten(1).T  # [T, C]
    if mode == "chain":
        for index in reversed(range(count)):
            x = apply(index, x)
    elif mode == "mean":
        x = functools.reduce(torch.add, (apply(index, x) for index in range(count))) / count
    else:
        x = apply(map_index, x)
    return x.T.reshape(*maps.shape[:-2], *grid).to(maps.dtype, memory_format=torch.contiguous_format)


def _apply_map(x: Tensor, attention: Tensor, threshold: float, balance: int) -> Tensor:
    """One softmaxed map [T, T], normalised, times x [T, C] -> [T, C] float32. The map is not changed."""
    attention = attention.to(x.device)
    peak = attention.amax(0).float()  # before the cast: a maximum is exact in any dtype
    rows = _rows(len(x))
    return _thresholded_product(lambda i: attention[i * rows : (i + 1) * rows].float(), peak, x, threshold, balance)


def _apply_head(x: Tensor, head: QueryKey, threshold: float, keep: Tensor | None, balance: int) -> Tensor:
    """The map of one head, normalised, times x [T, C] -> [T, C] float32.

    Column maxima need the whole map before the first row can be thresholded, so there are two passes. Between
    them the map is stored in ``keep`` [T, T]; if that is None, it is computed again.
    """
    x = x.to(head.query.device)
    query = head.query.float() * head.scale
    rows = _rows(len(x))
    times_key = packed_linear(head.key.float(), rows)

    def block(index: int) -> Tensor:
        block_rows = slice(index * rows, (index + 1) * rows)
        scores = times_key(query[block_rows])
        return torch.softmax(scores, -1, out=scores if keep is None else keep[block_rows])

    def stored_block(index: int) -> Tensor:
        return block(index) if keep is None else keep[index * rows : (index + 1) * rows]

    peaks = _map_blocks(x, lambda index: block(index).amax(0))
    return _thresholded_product(stored_block, torch.stack(peaks).amax(0), x, threshold, balance)


def _thresholded_product(
    block: Callable[[int], Tensor], peak: Tensor, x: Tensor, threshold: float, balance: int
) -> Tensor:
    """A map, given by blocks of rows, divided by column maxima, thresholded, divided by row sums, times x."""
    # A column of ones in the product gives the row sums.
    values = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    scale = 1 / (peak + EPS)
    # F.threshold sets values equal to the threshold to 0 too; the method keeps them.
    below = float(torch.nextafter(torch.tensor(threshold), torch.tensor(-1.0)))

    def thresholded(index: int) -> Tensor:
        return F.threshold(block(index) * scale, below, 0.0, inplace=True)

    if balance:
        values = values * _column_scale(thresholded, x, balance)
    # Not oneDNN's linear: its rounding error over sums of thousands of products is twice the plain product's.
    product = torch.cat(_map_blocks(x, lambda i: thresholded(i) @ values))
    sums = product[:, -1:]
    return product[:, :-1] / (sums.clamp_min(_MIN_DIVISOR) if balance else sums + EPS)


def _column_scale(block: Callable[[int], Tensor], x: Tensor, rounds: int) -> Tensor:
    """Factors [T, 1] of the columns of a map after some rounds; the division by row sums that follows ends the last.

    Dividing columns and rows multiplies the map by diagonal matrices, of which only the diagonals are stored. A round
    is one pass over the blocks: the factors of a block's rows need only the block.
    """
    columns = torch.ones_like(x[:, :1])
    for index in range(rounds):

        def column_sums(number: int, first: bool = index == 0, columns: Tensor = columns) -> Tensor:
            part = block(number)
            return part.sum(0) if first else (1 / (part @ columns).clamp_min(_MIN_DIVISOR)).T[0] @ part

        sums = torch.stack(_map_blocks(x, column_sums)).sum(0)
        columns = (1 / sums.clamp_min(_MIN_DIVISOR))[:, None]
    return columns


def _map_blocks(x: Tensor, work: Callable[[int], Tensor]) -> list[Tensor]:
    """``work`` for every block of rows of x."""
    return [work(index) for index in range(-(-len(x) // _rows(len(x))))]


def _rows(tokens: int) -> int:
    return max(16, min(tokens, BLOCK_BYTES // (4 * tokens)))


def _tokens(attention: Tensor) -> int:
    if attention.ndim != 2 or attention.shape[0] != attention.shape[1]:
        raise ShapeError(f"attention: expected square maps [S*S, S*S], got {list(attention.shape)}")
    return len(attention)


def _grid(tokens: int, size: tuple[int, int] | None) -> tuple[int, int]:
    side = round(tokens**0.5)
    height, width = (side, side) if size is None else size
    if height * width != tokens:
        hint = "give size=(S, S') for a grid that is not square" if size is None else "give a size that fits"
        raise ShapeError(f"attention: {tokens} tokens are no grid of {height}x{width}; {hint}")
    return height, width
