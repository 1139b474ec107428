"""The edge-aware step after a refiner, or without one."""

from torch import Tensor

from cliper.ops.edge_aware import smooth_along_edges
from cliper.settings import Settings

__all__ = ["smooth_maps"]


def smooth_maps(maps: Tensor, image: Tensor, settings: Settings) -> Tensor:
    """Class maps smoothed along the image's edges, or the same maps where ``edge_weight`` is 0.

    Args:
        maps: [C, h, w].
        image: [3, H, W] in [0, 1].
        settings: ``edge_weight`` and ``edge_sigma``.

    Returns:
        As :func:`.smooth_along_edges`.
    """
    if not settings.edge_weight:
        return maps
    return smooth_along_edges(maps, image, weight=settings.edge_weight, sigma=settings.edge_sigma)
