"""A folder of pictures that the operator has opened to Label Studio's tasks."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from cliper.errors import ImageError, InputError

__all__ = ["PictureFolder"]

_UPLOADS, _LOCAL_FILES = "/data/upload/", "/data/local-files/"


class PictureFolder:
    """Files below one folder, by the addresses that Label Studio gives them; nothing is fetched from anywhere.

    ``/data/upload/1/a.jpg`` is FOLDER/1/a.jpg, ``/data/local-files/?d=some/a.jpg`` is FOLDER/some/a.jpg.

    Args:
        root: the folder.

    Raises:
        InputError: there is no such folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise InputError(f"expected a folder of Label Studio's pictures, got {str(root)!r}; check the path")
        self._root = Path(os.path.realpath(root))

    def read(self, address: str, most: int) -> bytes:
        """The bytes of a picture.

        Args:
            address: as in a task.
            most: bytes that it may have.

        Raises:
            ImageError: another kind of address, a path that leads out of the folder (over symbolic links too), no
                file there, or one that is too large. What lies outside is never told apart from what is not there.
        """
        path = self._path(address)
        try:
            # Not opened before it is known to be a file: opening a pipe could wait for ever.
            info = path.stat()
            if not stat.S_ISREG(info.st_mode):
                raise FileNotFoundError
            if info.st_size > most:
                raise ImageError(
                    f"expected a picture of at most {most / 1e6:.4g} MB, got a larger one; make it smaller"
                )
            with path.open("rb") as stream:
                return stream.read(most)
        except (OSError, ValueError) as error:
            if isinstance(error, ImageError):
                raise
            raise _nothing() from None

    def _path(self, address: str) -> Path:
        try:
            split = urlsplit(address)
            if split.scheme or split.netloc:
                raise ValueError
            if split.path.startswith(_UPLOADS) and not split.query:
                relative = unquote(split.path.removeprefix(_UPLOADS), errors="strict")
            elif split.path == _LOCAL_FILES:
                (relative,) = parse_qs(split.query, strict_parsing=True, errors="strict", max_num_fields=1)["d"]
            else:
                raise ValueError
        except (ValueError, KeyError):
            raise ImageError(
                f"expected a data: address, {_UPLOADS}... or {_LOCAL_FILES}?d=..., got another; no other is opened"
            ) from None
        try:
            path = Path(os.path.realpath(self._root / relative))
        except (OSError, ValueError):
            raise _nothing() from None
        if self._root not in path.parents:
            raise _nothing()
        return path


def _nothing() -> ImageError:
    return ImageError("expected a picture in the folder of Label Studio's pictures, got nothing there")
