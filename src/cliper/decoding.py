"""Image files to images as they are stored, with one clear line for what is no image.

The files are not trusted: their structure (:mod:`cliper.image_limits`) and the number of pixels are checked before a
pixel is decoded, and few decoders can be reached.
"""

from __future__ import annotations

import io
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import Image, ImageFile

from cliper.errors import ImageError, ResourceError, quote_path
from cliper.image_limits import LimitExceededError, check_avif_frames, check_limits, without_exif

__all__ = [
    "MAX_PIXELS",
    "check_opened",
    "check_pixels",
    "decode_stream",
    "decoding_memory_errors",
    "load_pixels",
    "one_line",
    "open_picture",
]

MAX_PIXELS = 128_000_000
_MAX_SIDE = 2**20  # pixels; Pillow keeps a pointer for each row

# Only these, of all that Pillow knows: each further decoder is one more that strangers' files can reach, and
# some of them start other programs (EPS runs Ghostscript). HEIF is there once a plugin has registered it.
_FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "TIFF",
    "BMP",
    "PPM",
    "AVIF",
    "JPEG2000",
    "HEIF",
)


def open_picture(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode the first frame of a file and leave its mode as it is (palette indices, 16 bit, ...).

    Raises:
        ImageError: there is no such file, it is not a picture, it is damaged or too large.
        ResourceError: memory ran out while it was decoded.

    Example:
        >>> open_picture("no.png")
        Traceback (most recent call last):
        cliper.errors.ImageError: expected a picture at 'no.png', got nothing there; check the path
    """
    name = quote_path(path)
    try:
        info = Path(path).stat()
        if stat.S_ISDIR(info.st_mode):
            raise ImageError(f"expected a picture, got the folder {name}; give one file")
        if not stat.S_ISREG(info.st_mode):  # opening a pipe could wait for ever
            raise ImageError(f"expected a picture, got a socket, pipe or device: {name}; give a file")
        if info.st_size == 0:
            raise ImageError(f"expected a picture, got an empty file (0 bytes): {name}; fetch it again")
        with Path(path).open("rb") as stream:
            return decode_stream(stream, name, max_pixels)
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError(f"expected a picture at {name}, got nothing there; check the path") from None
    except PermissionError:
        raise ImageError(
            f"expected a picture that may be read, got no permission for {name}; change its permissions"
        ) from None
    except (OSError, ValueError) as error:  # a name too long or with a null character; ours pass unchanged
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"expected a picture, could not open {name} ({one_line(error)}); check the path") from None


def decode_stream(stream: IO[bytes], name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode the first frame of an open file, known by its content.

    Raises:
        ImageError: it is not a picture, it is damaged or too large.
        ResourceError: memory ran out while it was decoded.
    """
    picture = _identify(stream, name, max_pixels)
    check_pixels(picture.size, max_pixels, name)
    return load_pixels(picture, name)


def load_pixels(picture: Image.Image, name: str) -> Image.Image:
    """Decode an image of which only the header was read, and return it.

    Raises:
        ImageError: it is damaged.
        ResourceError: memory ran out.
    """
    try:
        picture.load()
    except Exception as error:
        raise _decoding_error(picture.format or picture.mode, name, error) from None
    return picture


def check_opened(picture: Image.Image, name: str) -> None:
    """Check the file of an image that the caller opened and that is not decoded yet, as :func:`decode_stream` does.

    Raises:
        ImageError: it exceeds a limit.
    """
    if not isinstance(picture, ImageFile.ImageFile) or not picture.tile or picture.fp is None:
        return
    try:
        stream = picture.fp
        position = stream.tell()
        if picture.format == "AVIF":
            stream.seek(0)
            check_avif_frames(stream.read(), *picture.size)
        else:
            check_limits(stream, picture.format or "", lambda _: None)
        stream.seek(position)
    except Exception as error:
        raise _decoding_error(picture.format or picture.mode, name, error) from None


@contextmanager
def decoding_memory_errors(name: str) -> Iterator[None]:
    """Turn a ``MemoryError`` while an image is read or converted into one that says so.

    Args:
        name: what messages call the image.

    Raises:
        ResourceError: memory ran out inside.
    """
    try:
        yield
    except MemoryError:
        raise _out_of_memory(name) from None


def check_pixels(size: tuple[int, int], max_pixels: int, name: str) -> None:
    """Refuse a (width, height) without a pixel or with too many.

    Raises:
        ImageError: the message says how many there may be.
    """
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"expected a picture of at least 1x1 pixels, got {width}x{height}: {name}")
    if width * height > max_pixels:
        raise ImageError(
            f"expected a picture of at most {max_pixels / 1e6:.4g} megapixels, got {width}x{height} = "
            f"{width * height / 1e6:.4g} megapixels: {name}; make it smaller first"
        )
    if max(width, height) > _MAX_SIDE:
        raise ImageError(
            f"expected a picture of at most {_MAX_SIDE:,} pixels a side, got {width}x{height}: {name}; cut it in pieces"
        )


def _identify(stream: IO[bytes], name: str, max_pixels: int) -> ImageFile.ImageFile:
    """Check the file's structure and open it by content, header only.

    ``Image.open`` is not used: it warns of, or refuses, large pictures by process-wide settings (silencing
    that is not thread-safe before Python 3.14) without saying how large they are, and tries every format.
    """
    Image.init()
    prefix = stream.read(16)
    for kind in _FORMATS:
        if kind not in Image.OPEN:
            continue
        factory, accepts = Image.OPEN[kind]
        answer = accepts(prefix) if accepts else True
        if isinstance(answer, str) or not answer:  # a text says that the decoder was not built in
            continue
        stream.seek(0)
        try:
            return _open(kind, factory, stream, lambda size: check_pixels(size, max_pixels, name))
        except (SyntaxError, IndexError, TypeError, struct.error):  # as Image.open does: not this format
            continue
        except Exception as error:  # decoders raise nearly everything on damaged data
            raise _decoding_error(kind, name, error) from None
    raise ImageError(
        "expected a picture (JPEG, PNG, WebP, GIF, TIFF, BMP, PPM, AVIF or JPEG 2000), "
        f"got something else: {name}; convert it to PNG or JPEG"
    )


def _open(
    kind: str,
    factory: Callable[..., ImageFile.ImageFile],
    stream: IO[bytes],
    check_size: Callable[[tuple[int, int]], None],
) -> ImageFile.ImageFile:
    if kind != "AVIF":
        check_limits(stream, kind, check_size)
        return factory(stream, "")
    data = stream.read()
    picture = factory(io.BytesIO(without_exif(data)), "")
    check_avif_frames(data, *picture.size)
    return picture


def _decoding_error(kind: str, name: str, error: Exception) -> ImageError | ResourceError:
    if isinstance(error, ImageError):
        return error
    # Decoders in C have no exception of their own for it.
    if isinstance(error, MemoryError) or "out of memory" in str(error) or "decoder error -9" in str(error):
        return _out_of_memory(name)
    if isinstance(error, LimitExceededError):
        return ImageError(f"{error}: {name}; export it anew as a plain PNG or JPEG")
    if isinstance(error, Image.DecompressionBombError):  # GIF, WebP and TIFF look before they tell the size
        return ImageError(
            f"expected a picture of at most {MAX_PIXELS / 1e6:.4g} megapixels, got a larger one: {name}; "
            "make it smaller first"
        )
    return ImageError(
        f"expected a whole picture, got a truncated or damaged one ({kind}): {name} ({one_line(error)}); "
        "fetch or export it again"
    )


def _out_of_memory(name: str) -> ResourceError:
    return ResourceError(f"memory ran out while decoding {name}; make the picture smaller first")


def one_line(error: BaseException) -> str:
    """What an error says, fit to stand inside a message."""
    return " ".join(str(error).split())[:200] or type(error).__name__
