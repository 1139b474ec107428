"""Edge-aware smoothing: class maps follow the image's edges.

Source: the weighted least squares of Farbman et al., "Edge-Preserving Decompositions for Multi-Scale Tone and Detail
Manipulation", SIGGRAPH 2008; ``docs/method.md``, section 3, "Edge-aware smoothing".
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.errors import ShapeError
from cliper.ops.conjugate_gradient import conjugate_gradient

__all__ = ["MAX_PIXELS", "smooth_along_edges"]

MAX_PIXELS = 256 * 256
"""Number of pixels to which larger images are reduced before the solve."""

# Size of the maps that are solved together, in numbers: the few tensors of a step stay in the cache.
_CHUNK_ELEMENTS = 1 << 18


@torch.no_grad()
def smooth_along_edges(
    maps: Tensor,
    image: Tensor,
    *,
    weight: float,
    sigma: float = 0.1,
    iterations: int = 25,
    max_pixels: int = MAX_PIXELS,
) -> Tensor:
    """Solve ``(I + weight * L) X = Y``: close to the maps Y, and smooth where the image has no edge.

    L is the Laplacian of the pixels' grid, in which neighbours p and q (left and right, above and below) have the
    weight ``exp(-|color_p - color_q|^2 / (2 sigma^2))``. Solved by conjugate gradients with a Jacobi preconditioner,
    from X = Y on; where ``weight`` is large, ``iterations`` are the limit of how far values spread.

    Source: ``docs/method.md``, section 3, "Edge-aware smoothing".

    Args:
        maps: [C, h, w] floating point, resized bilinearly to the image.
        image: [3, H, W] in [0, 1]; if it has more than ``max_pixels``, it is reduced to H' x W' (antialiased).
        weight: of L, 0 (the result is Y) or more.
        sigma: of the colour differences, above 0.
        iterations: maximum number of iterations.
        max_pixels: bounds H' * W'.

    Returns:
        [C, H', W'] float32, on the device of the maps.

    Raises:
        ShapeError: maps or image of another shape.

    Example:
        >>> smooth_along_edges(torch.rand(2, 4, 4), torch.rand(3, 20, 30), weight=10).shape
        torch.Size([2, 20, 30])
    """
    if maps.ndim != 3 or image.ndim != 3 or len(image) != 3:
        raise ShapeError(f"expected maps [C, h, w] and image [3, H, W], got {list(maps.shape)}, {list(image.shape)}")
    size = _limited_size(image.shape[1], image.shape[2], max_pixels)
    guide = image.to(maps.device, torch.float32)[None]
    if size != image.shape[1:]:
        guide = F.interpolate(guide, size=size, mode="bilinear", align_corners=False, antialias=True)
    right, down = (_edge_weights(guide[0], dim, sigma) for dim in (-1, -2))
    diagonal = torch.ones(size, device=maps.device)
    for edges, dim in ((right, -1), (down, -2)):
        count = edges.shape[dim]
        diagonal.narrow(dim, 0, count).add_(edges, alpha=weight)
        diagonal.narrow(dim, 1, count).add_(edges, alpha=weight)
    # With the preconditioner on both sides the matrix has ones on its diagonal: S A S, S the root of 1 / diagonal.
    scale = diagonal.rsqrt()
    right = right * scale[:, :-1] * scale[:, 1:] * weight
    down = down * scale[:-1] * scale[1:] * weight

    def multiply(x: Tensor) -> Tensor:
        y = x.clone()
        y[..., 1:].addcmul_(right, x[..., :-1], value=-1)
        y[..., :-1].addcmul_(right, x[..., 1:], value=-1)
        y[..., 1:, :].addcmul_(down, x[..., :-1, :], value=-1)
        y[..., :-1, :].addcmul_(down, x[..., 1:, :], value=-1)
        return y

    step = max(1, _CHUNK_ELEMENTS // diagonal.numel())
    smooth = maps.new_empty(len(maps), *size, dtype=torch.float32)
    for first in range(0, len(maps), step):
        chunk = slice(first, first + step)
        y = F.interpolate(maps[chunk].float()[None], size=size, mode="bilinear", align_corners=False)[0]
        x = conjugate_gradient(multiply, y * scale, y / scale, dim=(-2, -1), iterations=iterations)
        smooth[chunk] = x * scale
    return smooth


def _limited_size(height: int, width: int, max_pixels: int) -> tuple[int, int]:
    shrink = min(1.0, math.sqrt(max_pixels / (height * width)))
    height = min(max(1, int(height * shrink)), max_pixels)
    return height, min(max(1, int(width * shrink)), max_pixels // height)


def _edge_weights(image: Tensor, dim: int, sigma: float) -> Tensor:
    """Weights of neighbours along a dimension, [H, W - 1] or [H - 1, W]."""
    return image.diff(dim=dim).square().sum(0).mul_(-0.5 / sigma**2).exp_()
