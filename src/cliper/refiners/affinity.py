"""Affinities from patch features, and propagation of class maps along them.

Source: arXiv 2411.13836, appendix; ``docs/method.md``, section 3, "Without diffusion" and "Label propagation".
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.errors import ShapeError
from cliper.ops.label_propagation import neighbor_weights, propagate_labels

__all__ = ["DECAY", "INVERSE_TEMPERATURE", "MEAN_WEIGHT", "feature_affinity", "propagate", "propagate_to_neighbors"]

MEAN_WEIGHT = 1.2
"""Weight of the mean similarity, which is subtracted from all similarities."""

INVERSE_TEMPERATURE = 3.0
"""Multiplies the remaining similarities before the softmax."""

DECAY = 0.01
"""Of the weight of a neighbour with its distance, per pixel of the network's input; as published."""

# Rows of the affinity are computed and used in blocks of about this many numbers.
_BLOCK = 1 << 22
# Below the similarity of a patch with itself, which is 1 up to rounding.
_BELOW_ONE = 1 - 1e-4


@torch.no_grad()
def propagate(
    maps: Tensor,
    features: Tensor,
    grid: tuple[int, int],
    *,
    mean_weight: float = MEAN_WEIGHT,
    inverse_temperature: float = INVERSE_TEMPERATURE,
    max_level: float | None = None,
) -> Tensor:
    """Propagate class maps between similar patches.

    With Q the cosine similarity of all pairs of patches and t the inverse temperature,
    ``A = softmax((Q - mean_weight * mean(Q)) * t)`` over each row, where negative values count as minus infinity; the
    result is ``A @ maps`` at the patches' grid.

    No similarity is above 1. Where ``mean_weight * mean(Q)`` is (patches of a nearly uniform image), every row is empty
    and every patch gets the mean of the maps. ``max_level`` limits the subtracted level to
    ``mean(Q) + max_level * (1 - mean(Q))``, which is below 1: then every patch keeps itself and its nearest patches.

    Args:
        maps: [C, h, w], resized to ``grid`` bilinearly.
        features: [S * S', D], one row for each patch.
        grid: (S, S').
        mean_weight, inverse_temperature: the method's are 1.2 and 3.
        max_level: from 0 to 1; None, the method's, sets no limit.

    Returns:
        [C, S, S'] float32 on the device of ``features``.

    Raises:
        ShapeError: features that do not fit the grid.

    Example:
        >>> propagate(torch.rand(2, 3, 4), torch.randn(48, 16), (6, 8)).shape
        torch.Size([2, 6, 8])
    """
    if features.ndim != 2 or features.shape[0] != grid[0] * grid[1]:
        raise ShapeError(
            f"features: expected [{grid[0] * grid[1]}, D] for a grid of {grid[0]}x{grid[1]}, got {list(features.shape)}"
        )
    x = _rows_of_maps(maps, features, grid)
    unit = F.normalize(features.float(), dim=-1)
    mean = _mean_similarity(unit)
    level = mean_weight * mean
    if max_level is not None:
        level = torch.minimum(level, torch.clamp(mean + max_level * (1 - mean), max=_BELOW_ONE))
    if torch.compiler.is_exporting():  # a loop over a number of patches that is not known cannot be traced
        return (_affinity_rows(unit, unit, level, inverse_temperature) @ x).T.reshape(maps.shape[0], *grid)
    rows = max(1, _BLOCK // len(unit))
    out = torch.empty_like(x)
    for start in range(0, len(unit), rows):
        out[start : start + rows] = _affinity_rows(unit[start : start + rows], unit, level, inverse_temperature) @ x
    return out.T.reshape(len(maps), *grid)


@torch.no_grad()
def propagate_to_neighbors(
    maps: Tensor, features: Tensor, grid: tuple[int, int], patch_size: int, *, neighbors: int, alpha: float
) -> Tensor:
    """Propagate class maps over the graph of nearest neighbours until nothing changes.

    Source: arXiv 2503.19777; ``docs/method.md``, section 3, "Label propagation".

    Args:
        maps, features, grid: as for :func:`propagate`.
        patch_size: in pixels, for the distance of patches.
        neighbors: as for :func:`.neighbor_weights`.
        alpha: as for :func:`.propagate_labels`.

    Returns:
        [C, S, S'] float32 on the device of ``features``.

    Raises:
        ShapeError: features that do not fit the grid.
    """
    weights = neighbor_weights(features, grid, neighbors=neighbors, decay=DECAY * patch_size)
    return propagate_labels(_rows_of_maps(maps, features, grid), weights, alpha).T.reshape(len(maps), *grid)


@torch.no_grad()
def feature_affinity(features: Tensor) -> Tensor:
    """The method's affinity, by which :func:`propagate` multiplies maps, as a matrix.

    Args:
        features: [P, D], one row for each patch.

    Returns:
        [P, P] float32, rows sum to 1. A row without any value above the level is uniform.

    Example:
        >>> feature_affinity(torch.randn(48, 16)).shape
        torch.Size([48, 48])
    """
    unit = F.normalize(features.float(), dim=-1)
    return _affinity_rows(unit, unit, MEAN_WEIGHT * _mean_similarity(unit), INVERSE_TEMPERATURE)


def _rows_of_maps(maps: Tensor, features: Tensor, grid: tuple[int, int]) -> Tensor:
    """Class maps [C, h, w], resized to the grid bilinearly, as rows [S * S', C] on the device of ``features``."""
    maps = maps.to(features.device, torch.float32)
    return F.interpolate(maps[:, None], size=grid, mode="bilinear", align_corners=False).flatten(1).T


def _mean_similarity(unit: Tensor) -> Tensor:
    """The mean of Q over all pairs is the squared length of the mean vector: Q itself is never stored."""
    return unit.mean(0).square().sum()


def _affinity_rows(rows: Tensor, unit: Tensor, level: Tensor, inverse_temperature: float) -> Tensor:
    """Rows of the affinity [R, P], for some patches [R, D] and all of them [P, D]."""
    scores = (rows @ unit.T - level) * inverse_temperature
    scores = scores.masked_fill_(scores < 0, -torch.inf)
    # A row is empty where the level is above 1, the similarity of a patch with itself.
    empty = torch.isneginf(scores).all(1, keepdim=True)
    return torch.softmax(torch.where(empty, 0.0, scores), -1)
