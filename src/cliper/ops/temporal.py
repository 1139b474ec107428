"""Class maps of a video's frames, averaged over time where the image does not change."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.errors import ShapeError

__all__ = ["temporal_mean", "unchanged_weights"]

# Chosen on benchmarks/video_smoothing.py. Noise of 6 of 255 levels in each channel, not reduced, gives weights of 0.85.
_SIGMA = 0.2
_SHARPNESS = 4
_MIN_MEAN = 0.5  # of the weights; below it the frame shows another scene, in which equal colours mean nothing


def unchanged_weights(before: Tensor, after: Tensor, size: tuple[int, int]) -> Tensor:
    """How much of the frame before each cell of a class map may take over.

    A pixel counts as ``exp(-|color difference|^2 / (2 * 0.2^2))``; a cell's weight is the fourth power of the mean over
    its pixels, so that a cell that a moving object enters or leaves takes over little. After a cut, where the mean of
    the weights would be below 0.5, all are 0.

    Args:
        before: [3, H, W] in [0, 1].
        after: [3, H, W], the next frame.
        size: (h, w) of the class maps.

    Returns:
        [h, w] float32 in [0, 1]; 1 where nothing changed.

    Raises:
        ShapeError: the frames differ in size.
    """
    if before.shape != after.shape or before.dim() != 3:
        raise ShapeError(f"expected two frames [3, H, W], got {list(before.shape)} and {list(after.shape)}")
    similarity = (after.float() - before.float()).square().sum(0).mul_(-0.5 / _SIGMA**2).exp_()
    weights = F.adaptive_avg_pool2d(similarity[None], size)[0].pow_(_SHARPNESS)
    return weights * (weights.mean() >= _MIN_MEAN)


def temporal_mean(maps: Tensor, mean: Tensor, count: Tensor, weights: Tensor, max_count: int) -> tuple[Tensor, Tensor]:
    """Add a frame to the running mean over the frames since a cell changed, of about ``max_count`` frames at most.

    Args:
        maps: [C, h, w] of the new frame.
        mean: [C, h, w] of the frames before.
        count: [h, w], how many frames each cell of ``mean`` stands for.
        weights: [h, w] of :func:`unchanged_weights`.
        max_count: 1 or more; older frames lose weight exponentially.

    Returns:
        The new mean and count.

    Example:
        >>> cell = torch.ones(1, 1)
        >>> temporal_mean(3 * cell[None], cell[None], cell, cell, 8)
        (tensor([[[2.]]]), tensor([[2.]]))
    """
    old = (count * weights).clamp_max(max_count - 1)
    return torch.lerp(mean, maps.float(), 1 / (1 + old)), old + 1
