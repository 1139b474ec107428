"""A picture of a run: what it is called, and where its bytes are."""

from __future__ import annotations

import io
import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliper.errors import ImageError, ResourceError, quote_path, short_reason
from cliper.images import decoding_memory_errors, load_image, load_stream
from cliper.scale.places import is_remote, open_file

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["PICTURE_SUFFIXES", "Item", "is_picture_name", "safe_name"]

_COMMON = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".dib")
_RARE = (".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".j2k", ".heic", ".heif", ".ico")
PICTURE_SUFFIXES = frozenset(_COMMON + _RARE)


@dataclass(frozen=True, slots=True)
class Item:
    """A picture that is to be segmented; small, and unless it holds something, fit for other machines.

    Args:
        number: its place in the run, from 1; the same each time the source is listed.
        name: relative, with ``/``, never leading out of a folder; no two items of a run share one.
        address: the file that it is, or is in.
        start: its first byte in that file.
        size: how many bytes there are; None for the whole file.
        held: its bytes or video frame, where the source cannot be read at any place.
        error: why it cannot be read, if that is known already.
    """

    number: int
    name: str
    address: str = ""
    start: int = 0
    size: int | None = None
    held: Any = None
    error: str | None = None

    @property
    def path(self) -> Path | None:
        """The file that it is, if it is one of its own on this machine."""
        one_file = self.held is None and self.size is None and not is_remote(self.address)
        return Path(self.address) if one_file else None

    def read(self) -> Image.Image:
        """The upright RGB picture.

        Raises:
            ImageError: it cannot be read, or is not a picture.
            ResourceError: memory ran out while it was decoded.
        """
        if self.error is not None:
            raise ImageError(self.error)
        if self.held is not None and not isinstance(self.held, bytes):
            return load_image(self.held.to_image())
        if self.path is not None:
            return load_image(self.address)
        shown = self.address if self.size is None and self.held is None else f"{self.address}:{self.name}"
        data = self.held if self.held is not None else self._bytes(shown)
        if not data:
            raise ImageError(f"expected a picture, got an empty file (0 bytes): {quote_path(shown)}; fetch it again")
        return load_stream(io.BytesIO(data), shown)

    def _bytes(self, shown: str) -> bytes:
        try:
            with decoding_memory_errors(quote_path(shown)), open_file(self.address) as stream:
                if self.start:
                    stream.seek(self.start)
                return stream.read(-1 if self.size is None else self.size)
        except ResourceError:
            raise
        except Exception as error:  # object stores have exceptions of their own
            raise ImageError(
                f"expected a picture, could not read {quote_path(shown)} ({short_reason(error)}); check the address"
            ) from None


def is_picture_name(name: str) -> bool:
    """Whether a name ends as a picture's does.

    Example:
        >>> is_picture_name("a/CAT.JPG"), is_picture_name("a/.jpg"), is_picture_name("notes.txt")
        (True, False, False)
    """
    return posixpath.splitext(name)[1].lower() in PICTURE_SUFFIXES


def safe_name(path: str) -> str:
    """A path as a name below a folder: nothing in it leads out of there.

    Example:
        >>> safe_name("/data/./a.jpg"), safe_name("../../a.jpg"), safe_name("b/../../a.jpg")
        ('data/a.jpg', 'a.jpg', 'a.jpg')
    """
    parts = posixpath.normpath("/" + path.replace("\0", "")).split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))
