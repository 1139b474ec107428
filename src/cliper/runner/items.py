"""The images of a run: their names, and where their bytes are."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cliper.decode_pool import DecodePool
from cliper.errors import ImageError, quote_path
from cliper.runner.storage import hide_credentials, is_remote, open_file, storage_errors

__all__ = ["IMAGE_SUFFIXES", "MAX_FILE_BYTES", "ImageItem", "Source", "check_file_size", "is_image_name", "safe_name"]

_COMMON = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".dib")
_RARE = (".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".j2k", ".heic", ".heif", ".ico")
IMAGE_SUFFIXES = frozenset(_COMMON + _RARE)

MAX_FILE_BYTES = 512 * 2**20
"""Size of a file in a tar or an object store at most: it is read into memory as a whole."""


class Source:
    """The images at a path or address; listed lazily and anew each time, always in the same order."""

    kind = "dataset"  # or "folder", "list", "tar", "video"
    is_sequential = False  # items carry their data, because the source can only be read from its beginning

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def items(self) -> Iterator[Any]:
        """All items. Raises InputError if the source ends in the middle."""
        raise NotImplementedError

    def count(self) -> int | None:
        """Number of items; None if only reading the whole source would tell."""
        return None if self.is_sequential else sum(1 for _ in self.items())


@dataclass(frozen=True, slots=True)
class ImageItem:
    """An image that is a file, or a part of a file.

    Args:
        number: position in the run, from 1.
        name: relative, with ``/``, never leading out of a folder.
        uri: the file that it is, or is in.
        start: its first byte in that file.
        size: number of bytes; None for the whole file.
        data: its bytes, or [H, W, 3] uint8 of a video frame, if the source can only be read from its beginning.
        error: why it cannot be read, if that is known already.
    """

    number: int
    name: str
    uri: str = ""
    start: int = 0
    size: int | None = None
    data: bytes | npt.NDArray[np.uint8] | None = None
    error: str | None = None

    @property
    def path(self) -> Path | None:
        """The file, if the image is a file of this machine."""
        is_file = self.data is None and self.size is None and not is_remote(self.uri)
        return Path(self.uri) if is_file else None

    def decode(self, decoder: DecodePool) -> npt.NDArray[np.uint8]:
        """The image, [H, W, 3] uint8, RGB, upright. Raises ImageError."""
        if self.error is not None:
            raise ImageError(self.error)
        if isinstance(self.data, np.ndarray):
            return self.data
        if self.path is not None:
            return decoder.decode(self.path)
        shown = hide_credentials(self.uri if self.size is None and self.data is None else f"{self.uri}:{self.name}")
        data = self._read(quote_path(shown)) if self.data is None else self.data
        if not data:
            raise ImageError(f"expected an image, got an empty file (0 bytes): {quote_path(shown)}; fetch it again")
        return decoder.decode(data, shown)

    def _read(self, shown: str) -> bytes:
        message = f"expected an image, could not read {shown}"
        with storage_errors(ImageError, message, self.uri, "check the address"), open_file(self.uri) as stream:
            size = getattr(stream, "size", None) if self.size is None else self.size
            check_file_size(size, shown)
            if self.start:
                stream.seek(self.start)
            data = stream.read(MAX_FILE_BYTES + 1 if size is None else size)
        check_file_size(len(data), shown)
        return data


def check_file_size(size: int | None, shown: str) -> None:
    """Raise ImageError for a file that is too large to be held in memory."""
    if size is not None and size > MAX_FILE_BYTES:
        raise ImageError(
            f"expected a file of at most {MAX_FILE_BYTES // 2**20} MiB, got {size / 2**20:.0f} MiB: {shown}; "
            "make it smaller first"
        )


def is_image_name(name: str) -> bool:
    """Whether a name has the suffix of an image format."""
    return posixpath.splitext(name)[1].lower() in IMAGE_SUFFIXES


def safe_name(path: str) -> str:
    """A path as a name below a folder, without any part that leads out of it.

    Example:
        >>> safe_name("/data/./a.jpg"), safe_name("../../a.jpg"), safe_name("b/../../a.jpg")
        ('data/a.jpg', 'a.jpg', 'a.jpg')
    """
    parts = posixpath.normpath("/" + path.replace("\0", "")).split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))
