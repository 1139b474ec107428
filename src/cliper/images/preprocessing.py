"""Images as the tensors that encoders take. Source: ``docs/method.md``, section 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from cliper.errors import ImageError

if TYPE_CHECKING:
    import torch

__all__ = ["MAX_PATCHES", "column_bounds", "preprocess", "resized_shape", "to_tensor"]

MAX_PATCHES = 8192


def column_bounds(width: int, column: tuple[int, int]) -> tuple[int, int]:
    """The bounds [start, stop) in pixels of one of several columns that a width is cut into.

    Args:
        width: in pixels.
        column: (i, n), the i-th of n columns, counted from 0 at the left.

    Example:
        >>> column_bounds(7, (0, 2)), column_bounds(7, (1, 2))
        ((0, 3), (3, 7))
    """
    index, count = column
    return width * index // count, width * (index + 1) // count


def resized_shape(width: int, height: int, size: int, patch: int, columns: int = 1) -> tuple[int, int]:
    """The (height', width') in pixels that an image is resized to: short side about ``size``.

    Each side becomes the nearest multiple of ``patch``, at least one patch. The order of the arithmetic is the
    published code's: it decides where a side is k + 0.5 patches.

    Args:
        width: in pixels.
        height: in pixels.
        size: approximate short side after the resize.
        patch: side of a patch in pixels.
        columns: number of columns that the resized image is cut into; the width becomes a multiple of
            ``patch * columns``, so that each has whole patches.

    Example:
        >>> resized_shape(640, 426, size=336, patch=16)
        (336, 512)
    """
    short = min(width, height)

    def scaled(side: int, multiple: int) -> int:
        return max(int(side * (size / short) / multiple + 0.5), 1) * multiple

    return scaled(height, patch), scaled(width, patch * columns)


def preprocess(
    image: Image.Image,
    *,
    size: int,
    patch: int,
    mean: Sequence[float],
    std: Sequence[float],
    column: tuple[int, int] | None = None,
) -> torch.Tensor:
    """Resize an image (bicubic), scale it to [0, 1] and normalise it, for a CLIP encoder. Nothing is cropped.

    Args:
        image: as :func:`cliper.images.load_image` returns it.
        size: approximate short side in pixels after the resize (see :func:`resized_shape`).
        patch: side of the encoder's patches in pixels.
        mean: of each channel, three numbers.
        std: of each channel, three numbers.
        column: None, or (i, n) for the i-th of n columns of the resized image, counted from 0 at the left. The whole
            image is resized before it is cut, because pixels beside a cut depend on both sides of it.

    Returns:
        [3, H', W'] float32 on the CPU.

    Raises:
        ImageError: the resized image has more than ``MAX_PATCHES`` patches.

    Example:
        >>> preprocess(Image.new("RGB", (64, 32)), size=32, patch=16, mean=[0.5] * 3, std=[0.5] * 3).shape
        torch.Size([3, 32, 64])
    """
    import torch

    column = column or (0, 1)
    height, width = resized_shape(*image.size, size, patch, column[1])
    left, right = column_bounds(width, column)
    rows, columns = height // patch, (right - left) // patch
    if rows * columns > MAX_PATCHES:
        ratio = max(image.size) / min(image.size)
        raise ImageError(
            f"expected an image of at most {MAX_PATCHES} patches, got {image.width}x{image.height} pixels "
            f"(aspect ratio {ratio:.4g} : 1), which at size {size} makes {columns}x{rows} patches; "
            "cut it into pieces or lower size"
        )
    pixels = to_tensor(image.resize((width, height), Image.Resampling.BICUBIC))[..., left:right].contiguous()
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def to_tensor(image: Image.Image) -> torch.Tensor:
    """The image as a tensor [3, H, W], float32 in [0, 1], on the CPU.

    Example:
        >>> to_tensor(Image.new("RGB", (2, 1), "white")).max().item()
        1.0
    """
    import torch

    pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).to(torch.float32).div(255).contiguous()
