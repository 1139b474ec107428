"""Class maps of overlapping tiles, blended into those of the whole image."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.errors import ShapeError

__all__ = ["TileBlender", "tile_starts"]


def tile_starts(length: int, tile: int, overlap: float) -> list[int]:
    """Where tiles begin that cover a length; the last one is moved back to fit.

    Args:
        length: what is to be covered.
        tile: length of a tile; a shorter ``length`` has one tile.
        overlap: of neighbours, as a share of a tile, 0 to below 1.

    Example:
        >>> tile_starts(10, 4, 0.5), tile_starts(3, 4, 0.5)
        ([0, 2, 4, 6], [0])
    """
    stride = max(1, round(tile * (1 - overlap)))
    last = max(0, length - tile)
    return [*range(0, last, stride), last]


class TileBlender:
    """Weighted mean of tiles' class maps; weights fall linearly from the middle of a tile to its border.

    Args:
        num_classes: C.
        size: (h, w), cells of the whole image's class maps.
        device: of the sums, float32.
    """

    def __init__(self, num_classes: int, size: tuple[int, int], device: torch.device) -> None:
        self._sum = torch.zeros(num_classes, *size, device=device)
        self._weight = torch.zeros(size, device=device)

    def add(self, maps: Tensor, top: int, left: int, size: tuple[int, int]) -> None:
        """Add the maps [C, h', w'] of the tile of ``size`` cells at (top, left); other sizes are resized bilinearly.

        Raises:
            ShapeError: the tile does not lie within the image.
        """
        part = (slice(top, top + size[0]), slice(left, left + size[1]))
        if min(top, left) < 0 or self._weight[part].shape != size:
            raise ShapeError(f"expected a tile within {list(self._weight.shape)}, got {size} at {top}, {left}")
        rows, columns = (torch.arange(side, device=maps.device) + 0.5 for side in size)
        weight = torch.minimum(rows, size[0] - rows)[:, None] * torch.minimum(columns, size[1] - columns)
        resized = F.interpolate(maps.float()[None], size=size, mode="bilinear", align_corners=False)[0]
        self._sum[:, part[0], part[1]] += resized * weight
        self._weight[part] += weight

    def blended(self) -> Tensor:
        """[C, h, w]; 0 where no tile lies. The blender cannot be used afterwards: the sums are divided in place."""
        return self._sum.div_(self._weight.clamp_min(1e-6))
