"""Affinities from patch features, and class maps spread along them: what DINO-like refiners share.

Source: arXiv 2411.13836, appendix; ``docs/method.md``, section 3, last point.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.errors import ShapeError

__all__ = ["SHARPNESS", "SUBTRACTED", "feature_affinity", "spread_by_affinity"]

SUBTRACTED = 1.2
"""How many times the mean similarity is taken off."""

SHARPNESS = 3.0
"""What is left is multiplied by this before the softmax: one over its temperature."""

# Rows of the affinity are made and used in blocks of about this many numbers.
_BLOCK = 1 << 22
# What a patch has with itself, 1 but for rounding, is above this.
_BELOW_ONE = 1 - 1e-4


@torch.no_grad()
def spread_by_affinity(
    maps: Tensor,
    features: Tensor,
    grid: tuple[int, int],
    *,
    subtracted: float = SUBTRACTED,
    sharpness: float = SHARPNESS,
    highest: float | None = None,
) -> Tensor:
    """Class maps where every patch takes what the patches that look like it have.

    With Q the cosine similarity of all pairs of patches, ``A = softmax((Q - subtracted * mean(Q)) * sharpness)``
    over each row, where negative values count as minus infinity; the result is ``A @ maps`` at the patches' grid.

    No similarity is above 1. Where ``subtracted * mean(Q)`` is (patches of a nearly plain picture), nothing is left of
    any row, and every patch gets the mean of the maps: the formula has no answer there. ``highest`` keeps what is
    subtracted below 1: to ``mean(Q) + highest * (1 - mean(Q))``, so many parts of the way from the mean to 1. Then
    every patch keeps at least itself, and those that are more like it than most.

    Args:
        maps: [C, h, w], resized to ``grid`` bilinearly.
        features: [S * S', D], one row for each patch.
        grid: (S, S').
        subtracted, sharpness: the method's are 1.2 and 3.
        highest: from 0 to 1; None, the method's, sets no limit.

    Returns:
        [C, S, S'] float32 on the device of ``features``.

    Raises:
        ShapeError: features that do not fit the grid.

    Example:
        >>> spread_by_affinity(torch.rand(2, 3, 4), torch.randn(48, 16), (6, 8)).shape
        torch.Size([2, 6, 8])
    """
    if features.ndim != 2 or len(features) != grid[0] * grid[1]:
        raise ShapeError(
            f"features: expected [{grid[0] * grid[1]}, D] for a grid of {grid[0]}x{grid[1]}, got {list(features.shape)}"
        )
    planes = F.interpolate(
        maps[:, None].to(features.device, torch.float32), size=grid, mode="bilinear", align_corners=False
    )
    x = planes.flatten(1).T
    unit = F.normalize(features.float(), dim=-1)
    mean = _mean_similarity(unit)
    level = subtracted * mean
    if highest is not None:
        level = torch.minimum(level, torch.clamp(mean + highest * (1 - mean), max=_BELOW_ONE))
    rows = max(1, _BLOCK // len(unit))
    out = torch.empty_like(x)
    for start in range(0, len(unit), rows):
        out[start : start + rows] = _affinity_rows(unit[start : start + rows], unit, level, sharpness) @ x
    return out.T.reshape(len(maps), *grid)


@torch.no_grad()
def feature_affinity(features: Tensor, *, subtracted: float = SUBTRACTED, sharpness: float = SHARPNESS) -> Tensor:
    """The affinity that :func:`spread_by_affinity` multiplies maps by, as a matrix.

    Args:
        features: [P, D], one row for each patch.
        subtracted, sharpness: as for :func:`spread_by_affinity`.

    Returns:
        [P, P] float32, rows sum to 1. A row of which nothing is left is uniform.

    Example:
        >>> feature_affinity(torch.randn(48, 16)).shape
        torch.Size([48, 48])
    """
    unit = F.normalize(features.float(), dim=-1)
    return _affinity_rows(unit, unit, subtracted * _mean_similarity(unit), sharpness)


def _mean_similarity(unit: Tensor) -> Tensor:
    """The mean of Q over all pairs is the squared length of the mean vector: Q itself is never held."""
    return unit.mean(0).square().sum()


def _affinity_rows(rows: Tensor, unit: Tensor, level: Tensor, sharpness: float) -> Tensor:
    """Rows of the affinity [R, P], for some patches [R, D] and all of them [P, D]."""
    scores = (rows @ unit.T - level) * sharpness
    scores = scores.masked_fill_(scores < 0, -torch.inf)
    # Nothing is left of a row where the level is above 1, what a patch has with itself.
    nothing = torch.isneginf(scores).all(1, keepdim=True)
    return torch.softmax(torch.where(nothing, 0.0, scores), -1)
