"""Random access to an image file, and the error of a file that exceeds a limit."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from typing import IO, Any

__all__ = ["MAX_METADATA", "CheckSize", "LimitExceededError", "Reader", "mebibytes"]

CheckSize = Callable[[tuple[int, int]], None]  # of width and height; raises

MAX_METADATA = 32 * 2**20  # bytes of metadata in a file

_WINDOW = 2**14
_MAX_BLOCK = 2**20


class LimitExceededError(Exception):
    """A file exceeds a limit.

    Args:
        limit: what is allowed, as it continues "expected an image".
        found: what the file has, as it continues "got".
    """

    def __init__(self, limit: str, found: str) -> None:
        super().__init__(f"expected an image {limit}, got {found}")


class Reader:
    """Bytes of a stream by offset, through a small window, so that many small reads are quick."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.size = stream.seek(0, os.SEEK_END)
        self._start = 0
        self._window = b""

    def read(self, offset: int, count: int) -> bytes:
        """``count`` bytes at ``offset``.

        Raises:
            EOFError: the file ends before.
        """
        if offset < 0 or count < 0 or offset + count > self.size:
            raise EOFError
        begin = offset - self._start
        if begin < 0 or begin + count > len(self._window):
            self._stream.seek(offset)
            self._window = self._stream.read(max(count, _WINDOW))
            self._start, begin = offset, 0
            if len(self._window) < count:
                raise EOFError
        return self._window[begin : begin + count]

    def unpack(self, format: str, offset: int) -> tuple[Any, ...]:
        """Numbers at an offset, as ``struct`` reads them.

        Raises:
            EOFError: the file ends before.
        """
        return struct.unpack(format, self.read(offset, struct.calcsize(format)))

    def search(self, pattern: re.Pattern[bytes], offset: int) -> int:
        """Where the next match of a pattern of two bytes begins.

        Raises:
            EOFError: there is none.
        """
        block = 2**10
        while True:
            data = self.read(offset, min(block, self.size - offset))
            found = pattern.search(data)
            if found:
                return offset + found.start()
            if len(data) < 2:
                raise EOFError
            offset += len(data) - 1  # a match may begin at the last byte
            block = min(2 * block, _MAX_BLOCK)


def mebibytes(count: int) -> str:
    """A number of bytes as text.

    Example:
        >>> mebibytes(3 * 2**20)
        '3 MiB'
    """
    return f"{count / 2**20:,.4g} MiB"
