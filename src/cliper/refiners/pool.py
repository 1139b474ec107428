"""Memory that is used again.

The system hands out large pieces of memory page by page, zeroed, and takes them back as soon as they are freed.
Writing 134 MB (one feature map of the VAE) to fresh memory takes several times as long as to memory that is
there already.
"""

import ctypes
import math
import platform
import threading

import torch
from torch import Tensor

from cliper.ops.parallel import in_worker

__all__ = ["Pool", "give_back_memory"]


class Pool:
    """Pieces of memory by name; each grows to the largest size asked of it, and stays.

    A piece is good until the same name is asked for again. The workers of
    :func:`~cliper.ops.parallel.ordered_map` have pieces of their own, one set each; all other threads share one set,
    and so take turns: whoever has models of several callers holds a lock around their use. However many callers
    there are, and whichever threads they come from, the memory is that of one.
    """

    def __init__(self) -> None:
        self._pieces: dict[tuple[int, str], Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """A contiguous float32 tensor of that shape with whatever is in it."""
        count = math.prod(shape)
        key = (threading.get_ident() if in_worker() else 0, name)
        piece = self._pieces.get(key)
        if piece is None or piece.numel() < count:
            self._pieces.pop(key, None)
            piece = self._pieces[key] = torch.empty(count)
        return piece[:count].view(shape)


def give_back_memory() -> None:
    """Let the system have what was freed in small pieces, which the C library would keep for later.

    A UNet leaves about 0.2 GB behind, which the VAE could not use: its pieces are larger. (It takes a few
    milliseconds. Only GNU's C library has, and needs, a call for this.)
    """
    if platform.libc_ver()[0] == "glibc":
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except (OSError, AttributeError):
            return
