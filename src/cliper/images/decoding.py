"""Decoding of untrusted image files: PIL images in the mode that is stored, or a one-line error.

The structure of a file (:mod:`cliper.images.limits`) and the number of its pixels are checked before a pixel is
decoded, and only decoders of common formats are used.
"""

from __future__ import annotations

import io
import re
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import Image, ImageFile

from cliper.errors import ImageError, ImageSizeError, ResourceError, quote_path, reraise, short_reason
from cliper.images.limits import LimitExceededError, check_limits, without_exif

__all__ = [
    "MAX_PIXELS",
    "check_file",
    "check_opened",
    "check_pixels",
    "decode",
    "decode_stream",
    "decoding_memory_errors",
    "open_image",
]

MAX_PIXELS = 128_000_000
_MAX_SIDE = 2**20  # pixels; Pillow keeps a pointer for each row

# Only these of Pillow's formats: each further decoder is one more that untrusted files can reach, and some start other
# programs (EPS runs Ghostscript). HEIF needs pillow-heif.
_HEIF_BRANDS = re.compile(rb"....ftyp(?:hei[csxm]|hev[csxm]|mif1|msf1)", re.DOTALL)
_MAX_BRANDS = 64  # bytes of the list of further brands that are searched
_PREFIXES = {
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "TIFF"),
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
}
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF", "JPEG2000")


def open_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode the first frame of a file, in the mode that is stored (palette indices, 16 bit, ...).

    Raises:
        ImageError: the file does not exist, is not an image, is damaged or exceeds a limit.
        ResourceError: memory ran out while it was decoded.

    Example:
        >>> open_image("no.png")
        Traceback (most recent call last):
        cliper.errors.ImageError: expected an image at 'no.png', got nothing there; check the path
    """
    with _open_file(path) as stream:
        return decode_stream(stream, quote_path(path), max_pixels)


def check_file(path: str | Path) -> str:
    """Check the structure of a file that another library than Pillow reads, for its number of pixels need not be small.

    Returns:
        "TIFF", "PNG" or "JPEG" by its content, or "" for other files, which are not checked.

    Raises:
        ImageError: the file does not exist or exceeds a limit.
    """
    with _open_file(path) as stream:
        prefix = stream.read(16)
        kind = next((kind for start, kind in _PREFIXES.items() if prefix.startswith(start)), "")
        try:
            check_limits(stream, kind, lambda _: None)
        except LimitExceededError as error:
            raise _decoding_error(kind, quote_path(path), error) from None
        return kind


@contextmanager
def _open_file(path: str | Path) -> Iterator[IO[bytes]]:
    name = quote_path(path)
    advice = "check the path and its permissions"
    with reraise((OSError, ValueError), ImageError, f"expected an image, could not open {name}", advice):
        try:
            info = Path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            raise ImageError(f"expected an image at {name}, got nothing there; check the path") from None
        if stat.S_ISDIR(info.st_mode):
            raise ImageError(f"expected an image, got the folder {name}; give one file")
        if not stat.S_ISREG(info.st_mode):  # opening a pipe could wait for ever
            raise ImageError(f"expected an image, got a socket, pipe or device: {name}; give a file")
        if info.st_size == 0:
            raise ImageError(f"expected an image, got an empty file (0 bytes): {name}; fetch it again")
        with Path(path).open("rb") as stream:
            yield stream


def decode_stream(stream: IO[bytes], name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode the first frame of an open file, whose format is known by its content.

    Raises:
        ImageError: it is not an image, is damaged or exceeds a limit.
        ResourceError: memory ran out while it was decoded.
    """
    image = _identify(stream, name, max_pixels)
    check_pixels(image.size, max_pixels, name)
    return decode(image, name)


def decode(image: Image.Image, name: str) -> Image.Image:
    """Decode an image of which only the header was read, in place, and return it.

    Raises:
        ImageError: it is damaged.
        ResourceError: memory ran out.
    """
    try:
        image.load()
    except Exception as error:
        raise _decoding_error(image.format or image.mode, name, error) from None
    return image


def check_opened(image: Image.Image, name: str) -> None:
    """Check the file of an image that is open but not decoded yet, as :func:`decode_stream` does.

    Raises:
        ImageError: it exceeds a limit.
    """
    if not isinstance(image, ImageFile.ImageFile) or not image.tile or image.fp is None:
        return
    try:
        stream = image.fp
        position = stream.tell()
        check_limits(stream, image.format or "", lambda _: None)
        stream.seek(position)
    except Exception as error:
        raise _decoding_error(image.format or image.mode, name, error) from None


@contextmanager
def decoding_memory_errors(name: str) -> Iterator[None]:
    """Replace a ``MemoryError`` of the block by a :class:`~cliper.errors.ResourceError`.

    Args:
        name: the image's name in error messages.

    Raises:
        ResourceError: memory ran out.
    """
    try:
        yield
    except MemoryError:
        raise _out_of_memory(name) from None


def check_pixels(size: tuple[int, int], max_pixels: int, name: str) -> None:
    """Check a (width, height) against the limits on pixels and sides.

    Raises:
        ImageError: it has no pixel, or too many.
    """
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"expected an image of at least 1x1 pixels, got {width}x{height}: {name}")
    if width * height > max_pixels:
        raise ImageSizeError(
            f"expected an image of at most {max_pixels / 1e6:.4g} megapixels, got {width}x{height} = "
            f"{width * height / 1e6:.4g} megapixels: {name}; make it smaller first"
        )
    if max(width, height) > _MAX_SIDE:
        raise ImageError(
            f"expected an image of at most {_MAX_SIDE:,} pixels a side, got {width}x{height}: {name}; "
            "cut it into pieces"
        )


def _identify(stream: IO[bytes], name: str, max_pixels: int) -> ImageFile.ImageFile:
    """Check the file's structure and open it by content, header only.

    ``Image.open`` is not used: it tries every format, and warns of or refuses large images by process-wide settings,
    without the size in its message (silencing the warning is not thread-safe before Python 3.14).
    """
    prefix = stream.read(16)
    is_heif = _HEIF_BRANDS.match(prefix) is not None and b"avif" not in stream.read(_MAX_BRANDS)
    if is_heif:
        _register_heif(name)
    for kind in ("HEIF",) if is_heif else _formats():
        factory, accepts = Image.OPEN[kind]
        answer = accepts(prefix) if accepts else True
        if isinstance(answer, str) or not answer:  # a string says that the decoder is not built in
            continue
        stream.seek(0)
        try:
            check_limits(stream, kind, lambda size: check_pixels(size, max_pixels, name))
            image: ImageFile.ImageFile = factory(
                io.BytesIO(without_exif(stream.read())) if kind in ("AVIF", "HEIF") else stream, ""
            )
            return image
        except (SyntaxError, IndexError, TypeError, struct.error) as error:  # as Image.open does: not this format
            if is_heif:
                raise _decoding_error(kind, name, error) from None
            continue
        except Exception as error:  # decoders raise nearly everything on damaged data
            raise _decoding_error(kind, name, error) from None
    raise ImageError(
        "expected an image (JPEG, PNG, WebP, GIF, TIFF, BMP, PPM, AVIF, HEIC or JPEG 2000), "
        f"got something else: {name}; convert it to PNG or JPEG"
    )


def _formats() -> Iterator[str]:
    """The formats that this build of Pillow reads; first those that it imports quickly: JPEG, PNG, GIF, BMP, PPM."""
    Image.preinit()
    common = [kind for kind in _FORMATS if kind in Image.OPEN]
    yield from common
    Image.init()
    yield from (kind for kind in _FORMATS if kind in Image.OPEN and kind not in common)


def _register_heif(name: str) -> None:
    """Add pillow-heif's decoder to Pillow's, unless it is there."""
    if "HEIF" in Image.OPEN:
        return
    try:
        import pillow_heif
    except ImportError:
        raise ImageError(
            f"expected a package that reads HEIC images, got none: {name}; pip install 'cliper[heif]'"
        ) from None
    pillow_heif.register_heif_opener(thumbnails=False)


def _decoding_error(kind: str, name: str, error: Exception) -> ImageError | ResourceError:
    if isinstance(error, ImageError):
        return error
    # Decoders in C report it by other exceptions.
    if isinstance(error, MemoryError) or "out of memory" in str(error) or "decoder error -9" in str(error):
        return _out_of_memory(name)
    if isinstance(error, LimitExceededError):
        return ImageError(f"{error}: {name}; export it anew as a plain PNG or JPEG")
    if isinstance(error, Image.DecompressionBombError):  # some of Pillow's decoders have this limit, too
        pixels, limit = (int(number) / 1e6 for number in re.findall(r"\d+", str(error)))
        return ImageError(
            f"expected an image of at most {limit:.4g} megapixels for Pillow's {kind} decoder, got one of "
            f"{pixels:.4g} megapixels: {name}; make it smaller first"
        )
    return ImageError(
        f"expected a complete image, got a truncated or damaged one ({kind}): {name} ({short_reason(error)}); "
        "fetch or export it again"
    )


def _out_of_memory(name: str) -> ResourceError:
    return ResourceError(f"memory ran out while decoding {name}; make the image smaller first")
