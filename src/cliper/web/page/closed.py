"""What the page's server takes from anybody: an upload, and the events that the page has. Gradio would take more.

It fetches an address that stands behind ``/file=``, or in place of a file, for whoever asks, it calls a function by any
name, and it says in many lines on the operator's terminal what it could not do.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cliper.web.drain import draining
from cliper.web.page.lines import Lines

__all__ = ["Closed", "closed"]

_FETCHING = ("http:/", "https:/", "/gradio_api/proxy=")
_READING = ("GET", "HEAD", "OPTIONS")
_UPLOAD, _EVENT = "/gradio_api/upload", "/gradio_api/queue/join"
_ENDING = ("/gradio_api/cancel", "/gradio_api/reset")

# What is read of an event before it is known which it is, in bytes.
_MOST = 2**20

# Of an event, what Gradio is told. It knows more, none of which the page says.
_SAID = ("data", "event_data", "fn_index", "session_hash", "trigger_id")
_NAME = 64  # letters of a session's name
_DEEP = 10  # lists and mappings one inside the other; what the page says has 4


class _Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def closed(lines: Lines, uploads: Path) -> Middleware:
    """:class:`Closed`, as an application takes it."""
    return Middleware(Closed, lines=lines, uploads=uploads)


class Closed:
    """ASGI middleware between everybody and Gradio.

    Only uploads are passed on unread, and only to Gradio's own place for them; events are read, and made anew of what
    was understood. All else that is more than looking is answered with 404.

    Args:
        app: Gradio's.
        lines: the page's events.
        uploads: the folder of uploaded files; no event may name any other file, nor an address.
    """

    def __init__(self, app: ASGIApp, lines: Lines, uploads: Path) -> None:
        self._app, self._lines, self._uploads = app, lines, uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it: 400, 403, 404, 413, or 503 where too many wait."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = str(scope["path"]).removeprefix(scope.get("root_path", ""))
        if scope["method"] not in _READING:
            receive, send = draining(scope, receive, send)
        try:
            if any(part in path.lower().replace(" ", "") for part in _FETCHING):
                raise _Refused(403, "no address is fetched here")
            if scope["method"] in _READING or (scope["method"] == "POST" and path == _UPLOAD):
                await self._app(scope, receive, send)
                return
            if scope["method"] != "POST" or path not in (_EVENT, *_ENDING):
                raise _Refused(404, "expected an upload, or an event of the page")
            body = await _read(receive)
            if path in _ENDING:
                await self._app(scope, _again(body, receive), send)
                return
            said = self._understood(body)
            with self._lines.place(said["fn_index"]) as free:
                if not free:
                    raise _Refused(503, "too many are waiting; try again soon")
                await self._app(scope, _again(json.dumps(said).encode(), receive), send)
        except _Refused as refused:
            await JSONResponse({"detail": str(refused)}, status_code=refused.status)(scope, receive, send)

    def _understood(self, body: bytes) -> dict[str, Any]:
        """An event of the page, with nothing but what it needs."""
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise _Refused(400, "expected an event as JSON")
        event, data, session = said.get("fn_index"), said.get("data"), said.get("session_hash")
        takes = self._lines.takes(event)
        if takes is None or not isinstance(event, int):
            raise _Refused(404, "expected an event of the page")
        if not isinstance(session, str) or not 0 < len(session) <= _NAME:
            raise _Refused(400, "expected an event with the name of its session")
        if not isinstance(data, list) or len(data) != takes:
            raise _Refused(400, f"expected an event with {takes} values")
        if len(body) > self._lines.largest(event):
            raise _Refused(413, "expected less")
        self._check_files([data, said.get("event_data")])
        return {key: said.get(key) for key in _SAID}

    def _check_files(self, values: list[Any]) -> None:
        """Refuse files that are not among the uploads. Gradio looks for files at any depth."""
        for _ in range(_DEEP):
            inner: list[Any] = []
            for value in values:
                if isinstance(value, list):
                    inner += value
                elif isinstance(value, dict):
                    inner += value.values()
                    place = value.get("path", str(self._uploads))
                    if not isinstance(place, str) or not Path(os.path.normpath(place)).is_relative_to(self._uploads):
                        raise _Refused(403, "expected a picture that was uploaded, got another file or an address")
            values = inner
        if values:
            raise _Refused(400, "expected an event with values that lie less deep")


async def _read(receive: Receive) -> bytes:
    """The body."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > _MOST:
            raise _Refused(413, "expected less")
        if not message.get("more_body", False):  # nor is there after a disconnect
            return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """A body that was read, and then what comes after it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
