"""Convolutions of 3x3 with a quarter of the multiplications, for a CPU.

Winograd's minimal filtering F(4x4, 3x3): tiles of 6x6 inputs and the 3x3 weights are each evaluated at 36 points,
multiplied there, and interpolated to 4x4 outputs: 36 multiplications where the plain sum has 144. The products are
matrix products over channels. All else is done on stripes of rows that stay in the cache, and so are the
normalisation and activation before a convolution and the sum after it. Each core does its own stripes.

Source: Lavin and Gray, arXiv 1509.09308. Their interpolation points 0, +-1, +-2 and infinity cost twice the rounding
error of those used here, which were found by trying (and which are still at about three times that of the plain
sum: 2e-5 at most where outputs are about 1).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliper.ops.compensation import times_transposed
from cliper.ops.parallel import ordered_map
from cliper.refiners.pool import Pool

__all__ = ["WinogradConv2d"]

A, B = 0.7, 1.5
OUT, IN = 4, 6  # sides of a tile's outputs and inputs

# Evaluating the weights takes a time that does not depend on the picture: as long as what is saved on about this
# many pixels.
LEAST_PIXELS = 48 * 48
# Numbers of one point in a stripe, which a core does by itself: with fewer the products are slow, with more the
# stripe leaves the core's cache.
STRIPE_NUMBERS = 1 << 16


class WinogradConv2d(nn.Module):
    """A 3x3 convolution with stride 1 and padding 1, float32 on a CPU.

    Args:
        layer: for which :meth:`can_replace` holds; shape and bias are taken over, the weight comes with
            :meth:`pack`.
        pool: where memory comes from.
    """

    def __init__(self, layer: nn.Conv2d, pool: Pool) -> None:
        super().__init__()
        self.in_channels, self.out_channels = layer.in_channels, layer.out_channels
        self.weight, self.bias = layer.weight, layer.bias
        self.pool = pool

    @staticmethod
    def can_replace(layer: nn.Conv2d) -> bool:
        """Whether the layer is of this kind, and wide enough for its products to be worth it."""
        return (
            layer.kernel_size == (3, 3)
            and layer.stride == layer.padding == layer.dilation == (1, 1)
            and layer.groups == 1
            and layer.padding_mode == "zeros"
            and min(layer.in_channels, layer.out_channels) >= 64
        )

    def pack(self, weight: Tensor) -> None:
        """Take the weight [out, in, 3, 3]; kept is [9, out * in]."""
        flat = weight.detach().permute(2, 3, 0, 1).reshape(9, -1).contiguous()
        self.weight = nn.Parameter(flat, requires_grad=False)

    def fits(self, x: Tensor) -> bool:
        """Whether pictures [B, C, h, w] are whole tiles, and enough of them."""
        height, width = x.shape[-2:]
        return height * width >= LEAST_PIXELS and height % OUT == 0 and width % OUT == 0

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C', h, w]."""
        if self.fits(x):
            return self.fused(x)
        weight = self.weight.view(3, 3, self.out_channels, self.in_channels).permute(2, 3, 0, 1)
        return F.conv2d(x, weight, self.bias, padding=1)

    def fused(
        self,
        x: Tensor,
        *,
        norm: nn.GroupNorm | None = None,
        shift: Tensor | None = None,
        residual: Tensor | None = None,
        shortcut: Callable[[Tensor], Tensor] | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """The convolution of ``silu(norm(x))``, and what is added to it, without whole results in between.

        Args:
            x: [B, C, h, w] that :meth:`fits`.
            norm: applied, and SiLU, before the convolution; None for neither.
            shift: [B, C'], added to every pixel.
            residual: [B, R, h, w], added; through ``shortcut`` if there is one.
            shortcut: a map of channels [..., R] -> [..., C'].
            out: [B, C', h, w], channels last, to write to; it may be ``residual``, and may not be ``x``.

        Returns:
            [B, C', h, w], channels last: ``out``, or fresh memory.
        """
        pixels = _channels_last(x)
        count, height, width, _ = pixels.shape
        target = x.new_empty(count, height, width, self.out_channels) if out is None else _channels_last(out)
        added = None if residual is None else _channels_last(residual)
        rows = OUT * self._stripe_rows(height // OUT, width // OUT)
        products = self._products(rows // OUT * (width // OUT))
        for b in range(count):
            affine = None if norm is None else self._affine(pixels[b], norm)
            constant = self.bias if shift is None else shift[b] if self.bias is None else self.bias + shift[b]

            def stripe(index: int, b: int = b, affine: Any = affine, constant: Tensor | None = constant) -> None:
                first, last = index * rows, min(height, (index + 1) * rows)
                part = self._stripe(pixels[b], first, last, affine, products)
                if constant is not None:
                    part += constant
                if added is not None:
                    more = added[b, first:last]
                    part += more if shortcut is None else shortcut(more)
                target[b, first:last] = part

            for _ in ordered_map(stripe, -(-height // rows)):
                pass
        return target.permute(0, 3, 1, 2)

    def _stripe_rows(self, rows: int, columns: int) -> int:
        """How many rows of tiles a stripe has: few enough for the cache, and as many for each core."""
        most = max(1, STRIPE_NUMBERS // max(self.in_channels, self.out_channels) // columns)
        cores = torch.get_num_threads()
        stripes = min(rows, -(-rows // most // cores) * cores)
        return -(-rows // stripes)

    def _products(self, tiles: int) -> list[Callable[[Tensor], Tensor]]:
        """For each of the 36 points, the product with the weight's value there.

        They are made on every call: kept, they would take four times the memory of the weights.
        """
        shape = (self.out_channels, self.in_channels)

        def row(index: int) -> list[Callable[[Tensor], Tensor]]:
            values = self.pool.take("pixels", IN, *shape).view(IN, -1)
            torch.mm(_weight_points()[index * IN : (index + 1) * IN], self.weight, out=values)
            return [times_transposed(value.view(shape), tiles) for value in values]

        return [product for products in ordered_map(row, IN) for product in products]

    def _affine(self, pixels: Tensor, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
        """Group normalisation of [h, w, C] as a factor and a summand for each channel."""
        flat = pixels.reshape(-1, pixels.shape[-1])
        parts = flat.split(max(1, STRIPE_NUMBERS * 4 // flat.shape[-1]))

        def moments(index: int) -> tuple[Tensor, Tensor]:
            part = parts[index]
            mean = part.mean(0)
            centred = torch.sub(part, mean, out=self.pool.take("scratch", *part.shape))
            return mean.double(), centred.square_().sum(0).double()

        # Parts, then channels, are put together by their own means: no difference of large sums.
        means, squares = (torch.stack(both) for both in zip(*ordered_map(moments, len(parts)), strict=True))
        sizes = torch.tensor([len(part) for part in parts], dtype=torch.float64)[:, None]
        mean = (means * sizes).sum(0) / len(flat)
        square = (squares + sizes * (means - mean).square()).sum(0)
        by_group = mean.view(norm.num_groups, -1)
        group_mean = by_group.mean(1, keepdim=True)
        spread = square.view_as(by_group).sum(1, keepdim=True) / len(flat)
        variance = (spread + (by_group - group_mean).square().sum(1, keepdim=True)) / by_group.shape[1]
        inverse = (variance + norm.eps).rsqrt().expand_as(by_group).reshape(-1)
        factor = inverse if norm.weight is None else inverse * norm.weight
        summand = -group_mean.expand_as(by_group).reshape(-1) * factor
        summand = summand if norm.bias is None else summand + norm.bias
        return factor.to(pixels.dtype), summand.to(pixels.dtype)

    def _stripe(
        self,
        pixels: Tensor,
        first: int,
        last: int,
        affine: tuple[Tensor, Tensor] | None,
        products: Sequence[Callable[[Tensor], Tensor]],
    ) -> Tensor:
        """Rows ``first`` to ``last`` of the convolution of [h, w, C], without bias -> [last - first, w, C']."""
        height, width, channels = pixels.shape
        rows, columns = (last - first) // OUT, width // OUT
        take = self.pool.take  # two results have one name where the first is done with before the second begins
        padded = take("pixels", last - first + 2, width + 2, channels)
        top, bottom = max(0, first - 1), min(height, last + 1)
        inner = padded[top - first + 1 : bottom - first + 1, 1:-1]
        padded[:, 0] = padded[:, -1] = 0
        padded[: top - first + 1] = 0
        padded[bottom - first + 1 :] = 0
        if affine is None:
            inner.copy_(pixels[top:bottom])
        else:
            torch.addcmul(affine[1], pixels[top:bottom], affine[0], out=inner)
            F.silu(inner, inplace=True)

        by_row = take("by line", IN, rows, width + 2, channels)
        _evaluate(
            [padded[i : i + (rows - 1) * OUT + 1 : OUT] for i in range(IN)],
            by_row,
            take("scratch", 2, *by_row.shape[1:]),
        )
        points = take("points", IN, IN, rows, columns, channels)  # [column point, row point, ...]
        _evaluate(
            [by_row[:, :, j : j + (columns - 1) * OUT + 1 : OUT] for j in range(IN)],
            points,
            take("scratch", 2, *points.shape[1:]),
        )
        tiles = rows * columns
        by_column = take("by line", OUT, IN, tiles, self.out_channels)  # [column in tile, row point, ...]
        scratch = take("scratch", 4, tiles, self.out_channels)
        for i in range(IN):
            values = [products[i * IN + j](points[j, i].view(tiles, channels)) for j in range(IN)]
            _interpolate(values, by_column[:, i], scratch)
        result = take("pixels", last - first, width, self.out_channels)
        shape = (OUT, rows, columns, self.out_channels)
        _interpolate(
            [by_column[:, i].view(shape) for i in range(IN)],
            result.view(rows, OUT, columns, OUT, -1).permute(1, 3, 0, 2, 4),
            take("scratch", 4, *shape),
        )
        return result


@functools.cache
def _weight_points() -> Tensor:
    """[36, 9]: a 3x3 weight's values at the points, in both directions."""
    rows = [[1 / (A * A * B * B), 0.0, 0.0]]
    for p, q in ((A, B), (B, A)):
        # Times p, which makes one of the four interpolations a mere sum.
        size = 2 * p * p * (p * p - q * q) / p
        rows += [[1 / size, p / size, p * p / size], [1 / size, -p / size, p * p / size]]
    rows += [[0.0, 0.0, 1.0]]
    matrix = torch.tensor(rows, dtype=torch.float64)
    with torch.inference_mode(False):  # it is kept, and may be used in either mode
        return torch.kron(matrix, matrix).float()


def _evaluate(x: Sequence[Tensor], out: Tensor, scratch: Tensor) -> None:
    """Six neighbours -> their tile's values at the six points, in one direction."""
    even, odd = scratch
    for index, (p, q) in enumerate(((A, B), (B, A))):
        torch.sub(x[4], x[2], alpha=q * q, out=even)
        torch.sub(x[3], x[1], alpha=q * q, out=odd)
        torch.add(even, odd, alpha=p, out=out[1 + 2 * index])
        torch.sub(even, odd, alpha=p, out=out[2 + 2 * index])
    for index in (0, 1):
        torch.sub(x[4 + index], x[2 + index], alpha=A * A + B * B, out=out[5 * index])
        out[5 * index].add_(x[index], alpha=A * A * B * B)


def _interpolate(m: Sequence[Tensor], out: Tensor, scratch: Tensor) -> None:
    """Products at the six points -> four neighbours, in one direction."""
    even_a, odd_a, even_b, odd_b = scratch
    torch.add(m[1], m[2], out=even_a)
    torch.sub(m[1], m[2], out=odd_a)
    torch.add(m[3], m[4], out=even_b)
    torch.sub(m[3], m[4], out=odd_b)
    torch.add(odd_a, odd_b, out=out[1])
    torch.add(m[5], odd_a, alpha=A * A, out=odd_a)
    torch.add(odd_a, odd_b, alpha=B * B, out=out[3])
    torch.add(m[0], even_a, alpha=1 / A, out=odd_a)
    torch.add(odd_a, even_b, alpha=1 / B, out=out[0])
    even_a.mul_(A)
    torch.add(even_a, even_b, alpha=B, out=out[2])


def _channels_last(x: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, h, w, C] contiguous: a view if it lies like that in memory already."""
    return x.permute(0, 2, 3, 1).contiguous()
