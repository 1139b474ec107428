"""Affinities from patch features, and class maps spread along them: what DINO-like refiners share.

Source: arXiv 2411.13836, appendix; ``docs/method.md``, section 3, last point.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.errors import ShapeError

__all__ = ["SHARPNESS", "SUBTRACTED", "spread_by_affinity"]

SUBTRACTED = 1.2
"""How many times the mean similarity is taken off."""

SHARPNESS = 3.0
"""What is left is multiplied by this before the softmax: one over its temperature."""

# Rows of the affinity are made and used in blocks of about this many numbers.
_BLOCK = 1 << 22


@torch.no_grad()
def spread_by_affinity(
    maps: Tensor,
    features: Tensor,
    grid: tuple[int, int],
    *,
    subtracted: float = SUBTRACTED,
    sharpness: float = SHARPNESS,
) -> Tensor:
    """Class maps where every patch takes what the patches that look like it have.

    With Q the cosine similarity of all pairs of patches, ``A = softmax((Q - subtracted * mean(Q)) * sharpness)``
    over each row, where negative values count as minus infinity; the result is ``A @ maps`` at the patches' grid.

    Args:
        maps: [C, h, w], resized to ``grid`` bilinearly.
        features: [S * S', D], one row for each patch.
        grid: (S, S').
        subtracted, sharpness: the method's are 1.2 and 3.

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
    # The mean over all pairs is the squared length of the mean vector: Q itself is never held.
    level = subtracted * unit.mean(0).square().sum()
    rows = max(1, _BLOCK // len(unit))
    out = torch.empty_like(x)
    for start in range(0, len(unit), rows):
        scores = (unit[start : start + rows] @ unit.T - level) * sharpness
        # A patch is most similar to itself: no row is without a finite value unless all patches are alike.
        scores = scores.masked_fill_(scores < 0, -torch.inf)
        alike = torch.isneginf(scores).all(1, keepdim=True)
        scores = torch.where(alike, 0.0, scores)
        out[start : start + rows] = torch.softmax(scores, -1) @ x
    return out.T.reshape(len(maps), *grid)
