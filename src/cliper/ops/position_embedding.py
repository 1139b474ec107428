"""Position embeddings for grids other than the one they were trained on."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.errors import ShapeError

__all__ = ["interpolate_dino_positions", "interpolate_position_embedding"]


def interpolate_position_embedding(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resize the patch part of a position embedding; the class token's row stays.

    Bilinear, ``align_corners=False``, without antialiasing. Source: ``docs/method.md``, section 1.

    Args:
        table: [1 + s * s, D].
        grid: (h, w), patches.

    Returns:
        [1 + h * w, D], dtype and device of ``table``.

    Raises:
        ShapeError: a table whose patch part is not square.
    """
    patches = _patch_planes(table)
    resized = F.interpolate(patches, size=grid, mode="bilinear", align_corners=False)
    return torch.cat([table[:1], resized[0].flatten(1).t()])


def interpolate_dino_positions(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resize the patch part of DINO's position embedding as DINO and DINOv2 do; the class token's row stays.

    Bicubic, with the scale factors ``(h + 0.1) / s`` and ``(w + 0.1) / s`` in place of ``h / s`` and ``w / s``: the
    sampling positions are those of a grid that is 0.1 patches larger. A grid of ``s`` by ``s`` gets the table itself.

    Source: ``interpolate_pos_encoding`` of https://github.com/facebookresearch/dino, and of DINOv2 with its default
    ``interpolate_offset``; ``docs/method.md``, section 3, "Without diffusion".

    Arguments, result and errors are those of :func:`interpolate_position_embedding`; the table must be float32.
    """
    patches = _patch_planes(table)
    side = patches.shape[-1]
    if grid == (side, side):
        return table
    # With scale factors that are given, and not recomputed from the sizes, PyTorch samples by these factors.
    factors = tuple((count + 0.1) / side for count in grid)
    resized = F.interpolate(patches, scale_factor=factors, mode="bicubic", recompute_scale_factor=False)
    return torch.cat([table[:1], resized[0].flatten(1).t()])


def _patch_planes(table: Tensor) -> Tensor:
    """[1 + s * s, D] -> [1, D, s, s], without the class token."""
    side = round((len(table) - 1) ** 0.5)
    if side * side + 1 != len(table):
        raise ShapeError(f"position table: expected 1 + s * s rows, got {len(table)}")
    return table[1:].t().reshape(1, -1, side, side)
