"""Test-time augmentation: class maps of several views of an image as one.

Source: ``docs/method.md``, section 2, "Views".
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["average_views"]


def average_views(maps: Sequence[Tensor], flipped: Sequence[bool]) -> Tensor:
    """Mean of the class maps of views of one image, on the grid of the first.

    Args:
        maps: for each view [C, h, w], of any grid.
        flipped: for each view whether it is the mirror image, left to right.

    Returns:
        [C, h, w] of the first view's grid; of a single view that is not flipped, its maps.
    """
    size = maps[0].shape[-2:]
    upright = [view.flip(-1) if flip else view for view, flip in zip(maps, flipped, strict=True)]
    resized = [
        view if view.shape[-2:] == size else F.interpolate(view[None], size=size, mode="bilinear")[0]
        for view in upright
    ]
    return resized[0] if len(resized) == 1 else torch.stack(resized).mean(0)
