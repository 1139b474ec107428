"""Random access to an image file, and the error for a file that exceeds a limit."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from typing import IO, Any

__all__ = ["MAX_METADATA", "CheckSize", "LimitExceededError", "Reader", "check_limit"]

CheckSize = Callable[[tuple[int, int]], None]  # takes (width, height) and raises if there are too many pixels

MAX_METADATA = 32 * 2**20  # bytes of metadata in a file


class LimitExceededError(Exception):
    """A file exceeds a limit. The message lacks the file's name."""


def check_limit(found: int, limit: int, what: str, unit: int = 1) -> None:
    """Raise :class:`LimitExceededError` if a count, which may be that of the walk so far, is above a limit.

    Example:
        >>> check_limit(65025, 8192, "tiles")
        Traceback (most recent call last):
        cliper.images.limits.reader.LimitExceededError: expected an image with at most 8,192 tiles, got at least 65,025
    """
    if found > limit:
        most, count = (f"{value:,}" if unit == 1 else f"{value / unit:,.4g}" for value in (limit, found))
        raise LimitExceededError(f"expected an image with at most {most} {what}, got at least {count}")


class Reader:
    """Bytes of a seekable stream by offset. Reading past its end raises an EOFError."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.size = stream.seek(0, os.SEEK_END)

    def read(self, offset: int, count: int) -> bytes:
        """``count`` bytes at ``offset``."""
        if offset < 0 or count < 0 or offset + count > self.size:
            raise EOFError
        self._stream.seek(offset)
        data = self._stream.read(count)
        if len(data) < count:
            raise EOFError
        return data

    def unpack(self, format: str, offset: int) -> tuple[Any, ...]:
        """Numbers at an offset in a format of :mod:`struct`."""
        return struct.unpack(format, self.read(offset, struct.calcsize(format)))

    def search(self, pattern: re.Pattern[bytes], offset: int) -> int:
        """Offset of the next match of a pattern of two bytes; without one the size of the file."""
        block = 2**10
        while offset < self.size:
            data = self.read(offset, min(block, self.size - offset))
            match = pattern.search(data)
            if match:
                return offset + match.start()
            offset += max(len(data) - 1, 1)  # a match may begin at the last byte
            block = min(2 * block, 2**20)
        return self.size
