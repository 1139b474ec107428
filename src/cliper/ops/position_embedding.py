"""Position embeddings for grids other than the one they were trained on."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.errors import ShapeError

__all__ = ["interpolate_dino_positions", "interpolate_position_embedding"]


def interpolate_position_embedding(
    table: Tensor, grid: tuple[int, int], *, class_token: bool = True, mode: str = "bilinear"
) -> Tensor:
    """Resize the patch part of a position embedding; the class token's row stays.

    With ``align_corners=False``. Source: ``docs/method.md``, section 1.

    Args:
        table: [1 + s * s, D]; without the first row if there is no class token.
        grid: (h, w), patches.
        class_token: whether there is one.
        mode: ``"bilinear"``, the method's; ``"antialiased"``, the same with antialiasing; or ``"bicubic"``.

    Returns:
        [1 + h * w, D], or [h * w, D], dtype and device of ``table``.

    Raises:
        ShapeError: a table whose patch part is not square.
    """
    patches = _patch_planes(table[1:] if class_token else table)
    kind, antialias = ("bilinear", True) if mode == "antialiased" else (mode, False)
    resized = F.interpolate(patches, size=grid, mode=kind, align_corners=False, antialias=antialias)
    rows = resized[0].flatten(1).t()
    return torch.cat([table[:1], rows]) if class_token else rows


def interpolate_dino_positions(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resize the patch part of DINO's position embedding as DINO and DINOv2 do; the class token's row stays.

    Bicubic, with the scale factors ``(h + 0.1) / s`` and ``(w + 0.1) / s`` in place of ``h / s`` and ``w / s``: the
    sampling positions are those of a grid that is 0.1 patches larger. A grid of ``s`` by ``s`` gets the table itself.

    Source: ``interpolate_pos_encoding`` of https://github.com/facebookresearch/dino, and of DINOv2 with its default
    ``interpolate_offset``; ``docs/method.md``, section 3, "Without diffusion".

    Arguments, result and errors are those of :func:`interpolate_position_embedding`; the table must be float32.
    """
    patches = _patch_planes(table[1:])
    side = patches.shape[-1]
    if grid == (side, side):
        return table
    # With scale factors that are given, and not recomputed from the sizes, PyTorch samples by these factors.
    factors = tuple((count + 0.1) / side for count in grid)
    resized = F.interpolate(patches, scale_factor=factors, mode="bicubic", recompute_scale_factor=False)
    return torch.cat([table[:1], resized[0].flatten(1).t()])


def _patch_planes(rows: Tensor) -> Tensor:
    """[s * s, D] -> [1, D, s, s]."""
    side = round(len(rows) ** 0.5)
    if side * side != len(rows):
        raise ShapeError(f"position table: expected s * s rows for the patches, got {len(rows)}")
    return rows.t().reshape(1, -1, side, side)
