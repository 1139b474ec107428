"""Upright 8-bit RGB images from files, streams, PIL images and arrays.

Colour profiles are not applied: CLIP and diffusion models were trained on pixels as stored, and their published
numbers come from them.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cliper.errors import ImageError, quote_path, short_reason
from cliper.images.decoding import (
    MAX_PIXELS,
    check_opened,
    check_pixels,
    decode,
    decode_stream,
    decoding_memory_errors,
    open_image,
)
from cliper.images.limits import exif_orientation

__all__ = ["ImageSource", "load_image", "load_stream"]

ImageSource = str | Path | Image.Image | npt.NDArray[np.uint8]

_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_EXIF_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An upright 8-bit RGB image from a file, a PIL image or an array.

    Of an animation it is the first frame (of a PIL image, the current one). Transparent pixels are blended with
    white. 16-bit greys are divided by 257; float greys must lie in [0, 1] or [0, 255]. The result is a new
    image without metadata; ``source`` is not changed. Thread-safe.

    Args:
        source: path, PIL image, or uint8 array [H, W] (grey), [H, W, 3] (RGB) or [H, W, 4] (RGBA).
        max_pixels: images with more pixels are refused before they are decoded.

    Returns:
        The image in mode RGB, with its EXIF orientation applied.

    Raises:
        ImageError: the file does not exist, is not an image, is damaged or exceeds a limit, or the array has
            another shape or dtype.
        ResourceError: memory ran out while it was decoded.

    Example:
        >>> load_image(np.zeros((2, 3), dtype=np.uint8)).size
        (3, 2)
    """
    if isinstance(source, Image.Image):
        name = "the PIL image"
        check_pixels(source.size, max_pixels, name)
        check_opened(source, name)
        image = decode(source, name)
    elif isinstance(source, np.ndarray):
        name = "the array"
        image = _from_array(source, max_pixels)
    elif isinstance(source, str | Path):
        name = quote_path(source)
        image = open_image(source, max_pixels=max_pixels)
    else:
        raise ImageError(
            "expected a path, a PIL image or a uint8 array [H, W, 3], "
            f"got {type(source).__name__}; convert it to one of these"
        )
    return _normalized(image, name)


def load_stream(stream: IO[bytes], name: str, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """As :func:`load_image`, from an open file, such as a member of an archive or an object of a remote store.

    Args:
        stream: seekable, positioned at its start.
        name: the image's name in error messages.
        max_pixels: as for :func:`load_image`.

    Raises:
        ImageError: it is not an image, is damaged or exceeds a limit.
        ResourceError: memory ran out while it was decoded.
    """
    return _normalized(decode_stream(stream, quote_path(name), max_pixels), quote_path(name))


def _from_array(array: npt.NDArray[Any], max_pixels: int) -> Image.Image:
    shape = "x".join(str(side) for side in array.shape)
    if array.dtype != np.uint8:
        raise ImageError(
            f"expected a uint8 array with values 0 to 255, got {array.dtype} of shape {shape}; "
            "scale it to 0..255 and convert with .astype('uint8')"
        )
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        hint = "move the channels last: .transpose(1, 2, 0)" if first else "pass one image"
        raise ImageError(f"expected an array HxW, HxWx3 or HxWx4, got shape {shape}; {hint}")
    check_pixels((array.shape[1], array.shape[0]), max_pixels, "the array")
    return Image.fromarray(np.ascontiguousarray(array))


def _normalized(image: Image.Image, name: str) -> Image.Image:
    """A new image: upright, RGB, and without metadata."""
    with decoding_memory_errors(name):
        rgb = _to_rgb(_apply_exif(image), name)
        if rgb is image:  # that of a file has attributes with the metadata
            rgb = image.copy()
    # A later reader would apply stale metadata (an orientation, a transparent colour) again.
    rgb.info = {}
    return rgb


def _apply_exif(image: Image.Image) -> Image.Image:
    transpose = _EXIF_TRANSPOSE.get(_orientation(image))
    return image if transpose is None else image.transpose(transpose)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8, or else the one in XMP, whose other fields are not read; 1 without either."""
    if image.format == "TIFF":
        return 1  # Pillow applied it when it decoded the file
    block = image.info.get("exif")
    text = image.info.get("Raw profile type exif")  # how ImageMagick writes it into a PNG: as hexadecimal text
    if block is None and isinstance(text, str):
        with contextlib.suppress(ValueError):
            block = bytes.fromhex(text.split("\n", 3)[-1])  # after an empty line, the name and the length
    orientation = exif_orientation(block) if isinstance(block, bytes) else None
    if orientation is not None:
        return orientation
    packet = image.info.get("XML:com.adobe.xmp") or image.info.get("xmp") or b""
    if isinstance(packet, str):
        packet = packet.encode("utf-8", "ignore")
    match = _XMP_ORIENTATION.search(packet) if isinstance(packet, bytes) else None
    return 1 if match is None else int(match[1])


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    mode = image.mode
    if mode == "F" or mode == "I" or mode.startswith("I;16"):
        return Image.fromarray(_to_uint8(np.asarray(image), mode, name)).convert("RGB")
    try:
        if mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
            if mode == "La":
                image = image.convert("LA")
            rgba = image if mode == "RGBA" else image.convert("RGBA")  # this would copy RGBA, too
            on_white = Image.new("RGB", rgba.size, "white")
            on_white.paste(rgba, mask=rgba)
            return on_white
        return image if mode == "RGB" else image.convert("RGB")
    except (ValueError, OSError) as error:
        raise ImageError(
            f"expected an image in grey, RGB, palette or CMYK colours, got mode {mode}: {name} "
            f"({short_reason(error)}); convert it to RGB first"
        ) from None


def _to_uint8(values: npt.NDArray[Any], mode: str, name: str) -> npt.NDArray[np.uint8]:
    """Grey values of more than 8 bit as 8 bit; PIL's own conversion would clip them at 255."""
    low, high = float(values.min()), float(values.max())
    if mode == "F":
        if not (low >= 0 and high <= 255):  # false for NaN, too
            raise ImageError(
                f"expected a float image with values in [0, 1] or [0, 255], got {low:g} to {high:g}: "
                f"{name}; scale it first"
            )
        scale = 255.0 if high <= 1 else 1.0
    else:
        if low < 0 or high > 65535:
            raise ImageError(
                f"expected an image of at most 16 bit, got values {low:g} to {high:g}: {name}; scale it first"
            )
        scale = 1 / 257
    scaled = values.astype(np.float32)
    scaled *= scale
    return np.rint(scaled, out=scaled).astype(np.uint8)
