"""Memory that is used again.

The system hands out large pieces of memory page by page, zeroed, and takes them back as soon as they are freed.
Writing 134 MB (one feature map of the VAE) to fresh memory takes several times as long as to memory that is
there already.
"""

import math

import torch
from torch import Tensor

__all__ = ["Pool"]


class Pool:
    """Pieces of memory by name; each grows to the largest size asked of it, and stays.

    A piece is good until the same name is asked for again. Not for several threads at once.
    """

    def __init__(self) -> None:
        self._pieces: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """A contiguous float32 tensor of that shape with whatever is in it."""
        count = math.prod(shape)
        piece = self._pieces.get(name)
        if piece is None or piece.numel() < count:
            self._pieces.pop(name, None)
            piece = self._pieces[name] = torch.empty(count)
        return piece[:count].view(shape)
