"""Reading pictures safely, and turning them into tensors.

A picture comes from a stranger's disk: it may be turned, transparent, in 16 bit, cut off in the middle, no
picture at all, or a bomb. :func:`load_image` gives an upright 8-bit RGB picture or one clear line.

Colour profiles are not applied: CLIP and diffusion models were trained on, and their published numbers come
from, pixels as they are stored.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cliper.decoding import (
    MAX_PIXELS,
    check_opened,
    check_pixels,
    decode_stream,
    decoding_memory_errors,
    load_pixels,
    one_line,
    open_picture,
)
from cliper.errors import ImageError, quote_path
from cliper.image_limits import exif_orientation

if TYPE_CHECKING:
    import torch

__all__ = [
    "MAX_PATCHES",
    "MAX_PIXELS",
    "ImageSource",
    "column_bounds",
    "load_image",
    "load_stream",
    "patch_size_for",
    "prepare",
    "to_unit_tensor",
]

ImageSource = str | Path | Image.Image | npt.NDArray[np.uint8]

MAX_PATCHES = 8192

_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An upright 8-bit RGB picture from a file, a PIL image or an array.

    Of an animation it is the first frame (of a PIL image, the current one). What is transparent is shown on
    white. 16-bit greys are divided by 257; float greys must lie in [0, 1] or [0, 255]. The result is a new
    image without metadata; ``source`` is left as it is. Safe to call from many threads.

    Args:
        source: path, PIL image, or uint8 array [H, W] (grey), [H, W, 3] (RGB) or [H, W, 4] (RGBA).
        max_pixels: pictures with more pixels than this are refused before they are decoded.

    Returns:
        The picture in mode RGB, turned as its EXIF orientation says.

    Raises:
        ImageError: there is no such file, it is not a picture, it is damaged or too large, or the array has
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
        picture = load_pixels(source, name)
    elif isinstance(source, np.ndarray):
        name = "the array"
        picture = _from_array(source, max_pixels)
    elif isinstance(source, str | Path):
        name = quote_path(source)
        picture = open_picture(source, max_pixels=max_pixels)
    else:
        raise ImageError(
            "expected a path, a PIL image or a uint8 array [H, W, 3], "
            f"got {type(source).__name__}; convert it to one of these"
        )
    return _finished(picture, name)


def load_stream(stream: IO[bytes], name: str, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """As :func:`load_image`, from the bytes of a file that is open already: in an archive, say, or far away.

    Args:
        stream: positioned at its begin, seekable.
        name: what messages call it.
        max_pixels: as for :func:`load_image`.

    Raises:
        ImageError: it is not a picture, it is damaged or too large.
        ResourceError: memory ran out while it was decoded.
    """
    return _finished(decode_stream(stream, quote_path(name), max_pixels), quote_path(name))


def column_bounds(width: int, column: tuple[int, int]) -> tuple[int, int]:
    """The pixels of one of several columns that a width is cut into: from the first to the one after the last.

    Args:
        width: in pixels.
        column: (i, n), the i-th of n columns, counted from 0 at the left.

    Example:
        >>> column_bounds(7, (0, 2)), column_bounds(7, (1, 2))
        ((0, 3), (3, 7))
    """
    index, count = column
    return width * index // count, width * (index + 1) // count


def patch_size_for(width: int, height: int, size: int, patch: int, columns: int = 1) -> tuple[int, int]:
    """The (height', width') in pixels that a picture is resized to: short side about ``size``.

    Each side becomes the nearest multiple of ``patch``, at least one patch. The order of the arithmetic is the
    published code's: it decides where a side is k + 0.5 patches. Source: ``docs/method.md``, section 1.

    Args:
        width: in pixels.
        height: in pixels.
        size: short side after the resize, about.
        patch: side of a patch in pixels.
        columns: into how many columns the resized picture is cut; the width becomes a multiple of
            ``patch * columns``, so that each has whole patches.

    Example:
        >>> patch_size_for(640, 426, size=336, patch=16)
        (336, 512)
    """
    short = min(width, height)

    def scaled(side: int, multiple: int) -> int:
        return max(int(side * (size / short) / multiple + 0.5), 1) * multiple

    return scaled(height, patch), scaled(width, patch * columns)


def prepare(
    image: Image.Image,
    *,
    size: int,
    patch: int,
    mean: Sequence[float],
    std: Sequence[float],
    column: tuple[int, int] | None = None,
) -> torch.Tensor:
    """The picture as a CLIP encoder wants it: bicubic resize, [0, 1], normalised. Nothing is cropped.

    Args:
        image: a picture as :func:`load_image` gives it.
        size: short side in pixels after the resize, about (see :func:`patch_size_for`).
        patch: side of the encoder's patches in pixels.
        mean: of each channel, three numbers.
        std: of each channel, three numbers.
        column: None, or (i, n) for the i-th of n columns of the resized picture, counted from 0 at the left. The whole
            is resized first: pixels beside a cut depend on both sides of it.

    Returns:
        [3, H', W'] float32 on the CPU.

    Raises:
        ImageError: the picture is so long, or ``size`` so large, that it would have more than
            ``MAX_PATCHES`` patches.

    Example:
        >>> prepare(Image.new("RGB", (64, 32)), size=32, patch=16, mean=[0.5] * 3, std=[0.5] * 3).shape
        torch.Size([3, 32, 64])
    """
    import torch

    column = column or (0, 1)
    height, width = patch_size_for(*image.size, size, patch, column[1])
    left, right = column_bounds(width, column)
    rows, columns = height // patch, (right - left) // patch
    if rows * columns > MAX_PATCHES:
        ratio = max(image.size) / min(image.size)
        raise ImageError(
            f"expected a picture of at most {MAX_PATCHES} patches, got {image.width}x{image.height} pixels "
            f"(aspect ratio {ratio:.4g} : 1), which at size {size} makes {columns}x{rows} patches; "
            "cut it in pieces or lower size"
        )
    pixels = to_unit_tensor(image.resize((width, height), Image.Resampling.BICUBIC))[..., left:right].contiguous()
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def to_unit_tensor(image: Image.Image) -> torch.Tensor:
    """The picture as a tensor [3, H, W], float32 in [0, 1], on the CPU.

    Example:
        >>> to_unit_tensor(Image.new("RGB", (2, 1), "white")).max().item()
        1.0
    """
    import torch

    pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).to(torch.float32).div(255).contiguous()


def _from_array(array: npt.NDArray[Any], max_pixels: int) -> Image.Image:
    shape = "x".join(str(side) for side in array.shape)
    if array.dtype != np.uint8:
        raise ImageError(
            f"expected a uint8 array with values 0 to 255, got {array.dtype} of shape {shape}; "
            "scale it to 0..255 and convert with .astype('uint8')"
        )
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        hint = "move the channels last: .transpose(1, 2, 0)" if first else "pass one picture"
        raise ImageError(f"expected an array HxW, HxWx3 or HxWx4, got shape {shape}; {hint}")
    check_pixels((array.shape[1], array.shape[0]), max_pixels, "the array")
    return Image.fromarray(np.ascontiguousarray(array))


def _finished(picture: Image.Image, name: str) -> Image.Image:
    """Upright, RGB, and without metadata."""
    with decoding_memory_errors(name):
        rgb = _to_rgb(_turned(picture), name)
        # What is handed out must share nothing with the caller's image.
        rgb = rgb.copy() if rgb is picture else rgb
    # Stale metadata (an orientation, a transparent colour) would be applied again by whoever reads it next.
    rgb.info = {}
    return rgb


def _turned(picture: Image.Image) -> Image.Image:
    turn = _TURNS.get(_orientation(picture))
    return picture if turn is None else picture.transpose(turn)


def _orientation(picture: Image.Image) -> int:
    """From EXIF, or else from XMP, whose other fields are not read; 1 if the image is upright."""
    if picture.format == "TIFF":
        return 1  # Pillow turned it when it was decoded
    block = picture.info.get("exif")
    text = picture.info.get("Raw profile type exif")  # ImageMagick's way to write it into a PNG: hexadecimal, as text
    if block is None and isinstance(text, str):
        with contextlib.suppress(ValueError):
            block = bytes.fromhex(text.split("\n", 3)[-1])  # behind a blank line, the name and the length
    found = exif_orientation(block) if isinstance(block, bytes) else None
    if found is not None:
        return found
    packet = picture.info.get("XML:com.adobe.xmp") or picture.info.get("xmp") or b""
    if isinstance(packet, str):
        packet = packet.encode("utf-8", "ignore")
    match = _XMP_ORIENTATION.search(packet) if isinstance(packet, bytes) else None
    return 1 if match is None else int(match[1])


def _to_rgb(picture: Image.Image, name: str) -> Image.Image:
    mode = picture.mode
    if mode == "F" or mode == "I" or mode.startswith("I;16"):
        return Image.fromarray(_grey_bytes(np.asarray(picture), mode, name)).convert("RGB")
    try:
        if mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in picture.info:
            if mode == "La":
                picture = picture.convert("LA")
            picture = picture.convert("RGBA")
            on_white = Image.new("RGB", picture.size, "white")
            on_white.paste(picture.convert("RGB"), mask=picture.getchannel("A"))
            return on_white
        return picture if mode == "RGB" else picture.convert("RGB")
    except (ValueError, OSError) as error:
        raise ImageError(
            f"expected a picture in grey, RGB, palette or CMYK colours, got mode {mode}: {name} "
            f"({one_line(error)}); convert it to RGB first"
        ) from None


def _grey_bytes(values: npt.NDArray[Any], mode: str, name: str) -> npt.NDArray[np.uint8]:
    """Greys of more than 8 bit as 8 bit; PIL's own conversion would clip them at 255."""
    low, high = float(values.min()), float(values.max())
    if mode == "F":
        if not (low >= 0 and high <= 255):  # not-a-number fails this too
            raise ImageError(
                f"expected a float picture with values in [0, 1] or [0, 255], got {low:g} to {high:g}: "
                f"{name}; scale it first"
            )
        scale = 255.0 if high <= 1 else 1.0
    else:
        if low < 0 or high > 65535:
            raise ImageError(
                f"expected a picture of at most 16 bit, got values {low:g} to {high:g}: {name}; scale it first"
            )
        scale = 1 / 257
    scaled = values.astype(np.float32)
    scaled *= scale
    return np.rint(scaled, out=scaled).astype(np.uint8)
