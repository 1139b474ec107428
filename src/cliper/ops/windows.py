"""Sliding windows: their positions, and the average of their embeddings and attention.

Source: ``docs/method.md``, section 2, "Sliding windows".
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from cliper.errors import ShapeError

__all__ = ["STRIDE", "Window", "WindowMerger", "average_windows", "propagate_windows", "sum_windows", "window_grid"]

STRIDE = 112


class Window(NamedTuple):
    """A window in pixels: rows ``top`` to ``bottom``, columns ``left`` to ``right``, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    def patches(self, patch: int) -> tuple[slice, slice]:
        """Rows and columns of its patches in the image's grid."""
        return slice(self.top // patch, self.bottom // patch), slice(self.left // patch, self.right // patch)


def window_grid(height: int, width: int, crop: int, stride: int = STRIDE) -> list[Window]:
    """Windows that cover the image; the last row and column are shifted back to fit.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        crop: side of a window; a smaller image is covered by one window of its own size.
        stride: from one window to the next.

    Raises:
        ShapeError: windows smaller than their stride, which would not cover the image.

    Example:
        >>> window_grid(336, 448, 336)
        [Window(top=0, bottom=336, left=0, right=336), Window(top=0, bottom=336, left=112, right=448)]
    """
    bottoms, rights = _ends(height, crop, stride), _ends(width, crop, stride)
    if any(end - crop > before for ends in (bottoms, rights) for before, end in pairwise(ends)):
        raise ShapeError(
            f"window: expected at least {stride} pixels, the distance from one window to the next, got {crop}, which "
            f"leaves parts of {width}x{height} pixels unseen"
        )
    return [
        Window(max(bottom - crop, 0), bottom, max(right - crop, 0), right) for bottom in bottoms for right in rights
    ]


def _ends(length: int, crop: int, stride: int) -> list[int]:
    count = -(-max(length - crop, 0) // stride) + 1
    return [min(i * stride + crop, length) for i in range(count)]


class WindowMerger:
    """Averages windows' embeddings and attention over one image's patches.

    The published code averages logits. Logits are linear in the embeddings, so the mean embedding gives the
    same logits for any texts, and takes [L, P, D] for any number of texts.

    Args:
        layers: L.
        grid: (h, w), the image's patches.
        width: D.
        patch: side of a patch in pixels.
        device: of the sums (float32).
    """

    def __init__(self, layers: int, grid: tuple[int, int], width: int, patch: int, device: torch.device) -> None:
        h, w = grid
        self._patch = patch
        self._sum = torch.zeros(layers, h, w, width, device=device)
        self._count = torch.zeros(h, w, device=device)
        self._attention = torch.zeros(h, w, h, w, device=device)
        self._attention_count = torch.zeros(h, w, h, w, device=device)

    def add(self, window: Window, embeddings: Tensor, affinity: Tensor) -> None:
        """Add one window: embeddings [L, p, D], affinity [p, p], p patches row by row."""
        rows, columns = window.patches(self._patch)
        h, w = rows.stop - rows.start, columns.stop - columns.start
        self._sum[:, rows, columns] += embeddings.reshape(len(embeddings), h, w, -1)
        self._count[rows, columns] += 1
        self._attention[rows, columns, rows, columns] += affinity.reshape(h, w, h, w)
        self._attention_count[rows, columns, rows, columns] += 1

    def merged(self) -> Tensor:
        """[L, P, D]: mean embeddings, propagated by the windows' mean attention."""
        patches = self._count.numel()
        attention = (self._attention / (self._attention_count + 1e-5)).reshape(patches, patches)
        return propagate_windows((self._sum / self._count[..., None]).flatten(1, 2), attention)


def propagate_windows(embeddings: Tensor, attention: Tensor) -> Tensor:
    """Embeddings [L, P, D] of an image's patches, propagated by attention [P, P] whose rows are first scaled to 1."""
    # The row of a patch that attends to no other stays zero.
    attention = attention / attention.sum(-1, keepdim=True).clamp_min(1e-30)
    return attention.t() @ embeddings


def sum_windows(values: Tensor, windows: Sequence[Window], grid: tuple[int, int], patch: int) -> Tensor:
    """Sum of what windows of one size have for each patch of the image.

    Args:
        values: [W, p, D], of the p patches of each window, row by row.
        windows: W windows.
        grid: (h, w), the image's patches.
        patch: side of a patch in pixels.

    Returns:
        [h * w, D].
    """
    total = values.new_zeros(*grid, values.shape[-1])
    for window, value in zip(windows, values, strict=True):
        part = total[window.patches(patch)]
        part += value.reshape(part.shape)
    return total.flatten(0, 1)


def average_windows(values: Tensor, windows: Sequence[Window], grid: tuple[int, int], patch: int) -> Tensor:
    """Mean over the windows that contain a patch, [h * w, D]; arguments as for :func:`sum_windows`."""
    counts = sum_windows(torch.ones_like(values[..., :1]), windows, grid, patch)
    return sum_windows(values, windows, grid, patch) / counts
