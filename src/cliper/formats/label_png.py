"""Label maps as PNG: what benchmarks, viewers and annotation tools read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cliper.decoding import open_picture
from cliper.errors import ImageError, InputError, ShapeError
from cliper.files import atomic_write
from cliper.formats.palette import voc_palette

__all__ = ["check_labels", "label_image", "read_label_png", "write_label_png"]

_INDEXED, _GREY = 3, 0  # colour types of a PNG


def check_labels(labels: npt.ArrayLike) -> npt.NDArray[Any]:
    """The labels as an array [H, W] of integers from 0 to 65535.

    Raises:
        ShapeError: not two-dimensional, or without a pixel.
        InputError: not integers, or out of range.

    Example:
        >>> check_labels([[0, 1]]).shape
        (1, 2)
    """
    array = np.asarray(labels)
    if array.ndim != 2 or array.size == 0:
        shape = "x".join(str(side) for side in array.shape) or "a single number"
        raise ShapeError(f"expected labels [H, W] with at least one pixel, got shape {shape}; pass one label map")
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"expected integer labels, got {array.dtype}; convert them first")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 65535:
        raise InputError(f"expected labels from 0 to 65535, got {low} to {high}; renumber them first")
    return array


def label_image(labels: npt.ArrayLike, *, max_label: int = 0) -> Image.Image:
    """Labels as a picture whose stored values they are, to be saved as PNG.

    Args:
        labels: [H, W] integers from 0 to 65535.
        max_label: the max_label label that there may be, so that pictures of one list of classes are of one kind.

    Returns:
        Mode P with the palette of PASCAL VOC up to label 255; above, mode I;16.

    Raises:
        ShapeError: not two-dimensional, or without a pixel.
        InputError: not integers, or out of range.

    Example:
        >>> label_image([[0, 1]]).mode
        'P'
    """
    array = check_labels(labels)
    if max(int(array.max()), max_label) > 255:
        return Image.fromarray(array.astype(np.uint16))
    image = Image.fromarray(array.astype(np.uint8))
    image.putpalette(voc_palette().tobytes())
    return image


def write_label_png(path: str | Path, labels: npt.ArrayLike, *, max_label: int = 0) -> None:
    """Write labels so that each pixel's stored value is its label.

    Up to label 255 it is an indexed 8-bit PNG with the colours of PASCAL VOC, as that benchmark's ground
    truth; above, a 16-bit grey PNG, which has no colours.

    Args:
        path: where to; it is a PNG whatever the suffix.
        labels: [H, W] integers from 0 to 65535.
        max_label: the max_label label that there may be, so that pictures of one list of classes are of one kind.

    Raises:
        ShapeError: not two-dimensional, or without a pixel.
        InputError: not integers, or out of range.
        OutputError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_label_png(f"{folder}/a.png", [[0, 1], [2, 300]])
        ...     read_label_png(f"{folder}/a.png").tolist()
        [[0, 1], [2, 300]]
    """
    image = label_image(labels, max_label=max_label)
    with atomic_write(path) as temporary:
        image.save(temporary, format="PNG")


def read_label_png(path: str | Path) -> npt.NDArray[np.int32]:
    """Read labels from an indexed PNG of any depth, or a grey PNG of 8 or 16 bit.

    Returns:
        [H, W] int32, the stored values. (Not the 8 bit of the file, where ``labels - 1`` wraps round.)

    Raises:
        ImageError: no such file, damaged, or not a PNG of labels.
    """
    picture = open_picture(path)
    depth, colour_type = 0, -1
    if picture.format == "PNG":
        with Path(path).open("rb") as stream:
            header = stream.read(26)
        depth, colour_type = header[24], header[25]
    # Greys of less than 8 bit are refused: the decoder stretches them to 0..255.
    if colour_type != _INDEXED and not (colour_type == _GREY and depth in (8, 16)):
        raise ImageError(
            f"expected labels as an indexed PNG or a grey PNG of 8 or 16 bit, got {picture.format} in mode "
            f"{picture.mode}: {str(path)!r}; convert it, keeping the values"
        )
    return np.asarray(picture).astype(np.int32)
