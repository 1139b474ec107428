"""Position tables for grids other than the one they were trained on."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.errors import ShapeError

__all__ = ["resize_positions"]


def resize_positions(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resize the patch part of a position table; the class token's row stays.

    Bilinear, ``align_corners=False``, without antialiasing. Source: ``docs/method.md``, section 1.

    Args:
        table: [1 + s * s, D].
        grid: (h, w), patches.

    Returns:
        [1 + h * w, D], dtype and device of ``table``.

    Raises:
        ShapeError: a table whose patch part is not square.
    """
    side = round((len(table) - 1) ** 0.5)
    if side * side + 1 != len(table):
        raise ShapeError(f"position table: expected 1 + s * s rows, got {len(table)}")
    patches = table[1:].t().reshape(1, -1, side, side)
    resized = F.interpolate(patches, size=grid, mode="bilinear", align_corners=False)
    return torch.cat([table[:1], resized[0].flatten(1).t()])
