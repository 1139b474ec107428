"""Label maps as PNG: the stored value of a pixel is its label."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cliper.errors import ImageError, InputError, ShapeError, quote_path
from cliper.files import atomic_write
from cliper.formats.palette import voc_palette
from cliper.images import decoding_memory_errors, open_image

__all__ = ["check_labels", "encode_label_png", "read_label_png", "write_label_png"]

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


def encode_label_png(
    labels: npt.ArrayLike, *, max_label: int = 0, classes: Sequence[str] = (), grey: bool = False
) -> bytes:
    """The bytes of :func:`write_label_png`'s file. Raises as :func:`check_labels`."""
    stream = io.BytesIO()
    _to_image(labels, max_label, grey).save(stream, format="PNG", pnginfo=_class_names(classes))
    return stream.getvalue()


def write_label_png(
    path: str | Path,
    labels: npt.ArrayLike,
    *,
    max_label: int = 0,
    classes: Sequence[str] = (),
    grey: bool = False,
) -> None:
    """Write a label map as PNG.

    Up to label 255 it is an indexed 8-bit PNG with the colours of PASCAL VOC, like that benchmark's ground truth;
    above, a 16-bit grey PNG.

    Args:
        path: the file to write; it is a PNG whatever the suffix.
        labels: [H, W] integers from 0 to 65535.
        max_label: largest label of the class list, so that all label maps of a class list are of one kind.
        classes: stored in the file's text ``classes``, as a JSON list; class i has label ``i + 1``.
        grey: whether values up to 255 are stored as grey, too, for readers that turn a palette into colours (OpenCV).

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
    content = encode_label_png(labels, max_label=max_label, classes=classes, grey=grey)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def read_label_png(path: str | Path) -> npt.NDArray[np.int32]:
    """Read labels from an indexed PNG of any depth, or a grey PNG of 8 or 16 bit.

    Returns:
        [H, W] int32, the stored values. (Not uint8, in which ``labels - 1`` would wrap around.)

    Raises:
        ImageError: no such file, damaged, or not a PNG of labels.
        ResourceError: memory ran out.
    """
    image = open_image(path)
    depth, colour_type = 0, -1
    if image.format == "PNG":
        with Path(path).open("rb") as stream:
            header = stream.read(26)
        depth, colour_type = header[24], header[25]
    # Grey of less than 8 bit is refused: Pillow scales it to 0..255.
    if colour_type != _INDEXED and not (colour_type == _GREY and depth in (8, 16)):
        raise ImageError(
            f"expected labels as an indexed PNG or a grey PNG of 8 or 16 bit, got {image.format} in mode "
            f"{image.mode}: {quote_path(path)}; convert it and keep the values"
        )
    with decoding_memory_errors(quote_path(path)):
        return np.asarray(image).astype(np.int32)


def _class_names(classes: Sequence[str]) -> PngInfo | None:
    if not classes:
        return None
    info = PngInfo()
    info.add_text("classes", json.dumps(list(classes)))  # ASCII, which every reader of a PNG's text understands
    return info


def _to_image(labels: npt.ArrayLike, max_label: int, grey: bool) -> Image.Image:
    array = check_labels(labels)
    if max(int(array.max()), max_label) > 255:
        return Image.fromarray(array.astype(np.uint16))
    image = Image.fromarray(array.astype(np.uint8))
    if not grey:
        image.putpalette(voc_palette().tobytes())
    return image
