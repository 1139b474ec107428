"""What visitors leave on the disk: one file in a request, a limit for all together, and an age at which they go."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException
from starlette.types import Message, Receive, Scope

from cliper.web.page.limits import Limits

__all__ = ["PATIENCE", "Uploads"]

PATIENCE = 30.0
"""Seconds in which something more of a request is to arrive."""

_FORM = 2**16  # bytes of a form besides its file
_LEAST = 2**16  # bytes that a file counts at least: many small ones are a burden, too
_GRACE = 600.0  # seconds after which a file that Gradio should have removed is removed


class Uploads:
    """The folder of uploads, and of files that are downloaded.

    Args:
        folder: Gradio's, and everything else's that a visitor leaves.
        limits: of a file, of all, and how long they are kept.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder = folder
        self._seconds, self._most = limits.seconds + _GRACE, limits.disk_megabytes * 2**20
        self._largest = limits.upload_megabytes * 2**20 + _FORM
        self._coming = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[bool]:
        """Whether there is a place for one more upload; it is held for the block, in which it is to come."""
        self._coming += 1
        try:
            kept = await asyncio.to_thread(self.sweep)
            yield kept + self._coming * self._largest <= self._most
        finally:
            self._coming -= 1

    def bounded(self, scope: Scope, receive: Receive) -> Receive:
        """An upload's body, of one file.

        What is wrong with it, also that it is cut off, is raised as what Gradio removes the file for, and answers with
        400, or with 413 if "maximum allowed size" is in the message.
        """
        _, options = parse_options_header(Headers(scope=scope).get("content-type", ""))
        boundary = b"--" + options.get(b"boundary", b"")
        size = parts = 0
        last = b""

        async def next_piece() -> Message:
            nonlocal size, parts, last
            try:
                message = await asyncio.wait_for(receive(), PATIENCE)
            except TimeoutError:
                raise MultiPartException("expected a whole file, got a part of it and then nothing") from None
            if message["type"] != "http.request":
                raise MultiPartException("expected a whole file, got a part of it")
            piece = message.get("body", b"")
            size += len(piece)
            if size > self._largest:
                raise MultiPartException("expected less than the maximum allowed size")
            seen = last + piece
            parts += seen.count(boundary)
            last = seen[max(0, len(seen) - len(boundary) + 1) :]
            if parts > 2:  # one before the file, one after it
                raise MultiPartException("expected one file, got more")
            return message

        return next_piece

    def sweep(self) -> int:
        """Remove what is too old, such as files of uploads that were cut off; the bytes of all that is left."""
        oldest, kept = time.time() - self._seconds, 0
        for place, _, files in os.walk(self.folder, topdown=False):
            for file in files:
                with suppress(OSError):
                    path = Path(place, file)
                    known = path.lstat()
                    if known.st_ctime < oldest:
                        path.unlink()
                    else:
                        kept += max(known.st_size, _LEAST)
            with suppress(OSError):
                if Path(place) != self.folder and Path(place).stat().st_ctime < oldest:
                    Path(place).rmdir()  # if it is empty
        return kept
