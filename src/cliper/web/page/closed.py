"""What the page's server takes from anybody: an upload, events that the page has, and looks at what the page shows.

Gradio would take more. It fetches an address that stands behind ``/file=``, or in place of a file, for whoever asks, it
calls a function by any name, and it says in many lines on the operator's terminal what it could not do.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.datastructures import QueryParams
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cliper.web.page.door import Door
from cliper.web.page.kept import Kept
from cliper.web.page.limits import Limits
from cliper.web.page.lines import Lines
from cliper.web.page.refused import Refused
from cliper.web.page.sessions import Sessions
from cliper.web.page.uploads import PATIENCE, Uploads

__all__ = ["Closed", "closing"]

_FETCHING = ("http:/", "https:/", "/gradio_api/proxy=")
_UPLOAD, _EVENT, _ANSWERS = "/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/queue/data"
_LOOKS = re.compile(
    r"/|/config/?|/(gradio_api/)?theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt|/(assets|static)/.+"
    r"|/gradio_api/(file=.+|heartbeat/[a-zA-Z0-9]{1,64}|upload_progress|startup-events)"
)
_OFTEN = 300.0  # seconds between two sweeps
_LONGEST = 1000  # letters of what is looked at

# What is read of an event before it is known which it is, in bytes.
_MOST = 2**20

# Of an event, what Gradio is told. It knows more, none of which the page says.
_SAID = ("data", "event_data", "fn_index", "session_hash", "trigger_id")
_NAME = 64  # letters of a session's name
_DEEP = 10  # lists and mappings one inside the other; what the page says has 4


def closing(page: gr.Blocks, limits: Limits, folder: Path, kept: Kept, *, local: bool) -> dict[str, Any]:
    """What Gradio's application is to be made with, so that the page is closed and its folder of files bounded.

    Args:
        page: all of whose events are there.
        limits: how much visitors may ask for.
        folder: of uploads.
        kept: results, which are let go when they are too old, also where nobody asks for anything any more.
        local: whether the page is for this machine only.
    """
    uploads = Uploads(folder, limits)

    @asynccontextmanager
    async def serving(app: Any) -> AsyncIterator[None]:
        # Gradio puts what it is given behind its own, which already falls over some requests.
        app.middleware_stack = Door(app.middleware_stack, local=local)
        sweeping = asyncio.create_task(_sweeping(uploads.sweep, kept.sweep))
        try:
            yield
        finally:
            sweeping.cancel()

    behind = Middleware(Closed, lines=Lines(page, limits), sessions=Sessions(page, limits), uploads=uploads)
    return {"middleware": [behind], "lifespan": serving}


async def _sweeping(*sweeps: Callable[[], object]) -> None:
    """Sweep again and again; ends when it is cancelled."""
    while True:
        await asyncio.sleep(_OFTEN)
        for sweep in sweeps:
            await asyncio.to_thread(sweep)


class Closed:
    """ASGI middleware between everybody and Gradio.

    Only uploads are passed on unread, one file at a time, and only to Gradio's own place for them; events are read, and
    made anew of what was understood. All else that the page does not do is answered with 404.

    Args:
        app: Gradio's.
        lines: the page's events.
        sessions: whose events they are.
        uploads: the folder of uploaded files; no event may name any other file, nor an address.
    """

    def __init__(self, app: ASGIApp, lines: Lines, sessions: Sessions, uploads: Uploads) -> None:
        self._app, self._lines, self._sessions, self._uploads = app, lines, sessions, uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it: with 503 where too many wait, with 507 where too much is kept."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = str(scope["path"]).removeprefix(scope.get("root_path", ""))
        try:
            if any(part in path.lower().replace(" ", "") for part in _FETCHING):
                raise Refused(403, "no address is fetched here")
            if scope["method"] in ("GET", "HEAD"):
                await self._look(path, scope, receive, send)
            elif scope["method"] == "POST" and path == _UPLOAD:
                await self._upload(scope, receive, send)
            elif scope["method"] == "POST" and path == _EVENT:
                await self._join(scope, receive, send)
            else:
                raise Refused(404, "expected an upload, or an event of the page")
        except Refused as refused:
            await refused.answer()(scope, receive, send)

    async def _look(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        if path == _ANSWERS:
            session = QueryParams(scope["query_string"]).get("session_hash", "")
            if not self._sessions.known(session):
                raise Refused(404, "expected a session that has asked for something")
            with self._sessions.listening(session):
                await self._answers(session, scope, receive, send)
            return
        if not _LOOKS.fullmatch(path) or not path.isprintable() or len(path) > _LONGEST:
            raise Refused(404, "there is nothing of this name")
        await self._app(scope, receive, send)

    async def _answers(self, session: str, scope: Scope, receive: Receive, send: Send) -> None:
        noted, begun = _noted(send)
        try:
            await self._app(scope, receive, noted)
        except Exception:
            if self._sessions.known(session) or not begun():
                raise
            # Forgotten while its answers were fetched: as when it is fetched from twice, and one of the two goes.
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._uploads.place() as free:
            if not free:
                raise Refused(507, "too many files are kept at the moment; try again later")
            noted, begun = _noted(send)
            try:
                await self._app(scope, self._uploads.bounded(scope, receive), noted)
            except OSError:
                raise
            except Exception:  # whatever Gradio's parser meets
                if begun():
                    raise
                raise Refused(400, "expected a form with one file that has a name") from None

    async def _join(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await asyncio.wait_for(_read(receive), PATIENCE)
        except TimeoutError:
            raise Refused(408, f"expected an event within {PATIENCE:.0f} seconds") from None
        said = self._understood(body)
        with self._lines.place(said["fn_index"]) as free:
            if not free:
                raise Refused(503, "too many are waiting; try again soon")
            if not await self._sessions.admit(said["session_hash"]):
                raise Refused(503, "too many answers are waiting to be fetched; reload the page")
            await self._app(scope, _again(json.dumps(said).encode(), receive), send)

    def _understood(self, body: bytes) -> dict[str, Any]:
        """An event of the page, with nothing but what it needs."""
        try:
            said = json.loads(body)
            json.dumps(said, ensure_ascii=False).encode()  # what cannot be encoded is no text, in JSON's own words
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise Refused(400, "expected an event as JSON")
        event, data, session = said.get("fn_index"), said.get("data"), said.get("session_hash")
        takes = self._lines.takes(event)
        if takes is None or not isinstance(event, int):
            raise Refused(404, "expected an event of the page")
        if not isinstance(session, str) or not re.fullmatch(f"[a-zA-Z0-9]{{1,{_NAME}}}", session):
            raise Refused(400, "expected an event with the name of its session")
        if not isinstance(data, list) or len(data) != takes:
            raise Refused(400, f"expected an event with {takes} values")
        if len(body) > self._lines.largest(event):
            raise Refused(413, "expected less")
        trigger, more = said.get("trigger_id"), said.get("event_data")
        if trigger is not None and type(trigger) is not int:
            raise Refused(400, "expected an event with the number of what it is about")
        if more is not None and not isinstance(more, dict):
            raise Refused(400, "expected an event with a mapping of what it is about")
        picture = self._lines.picture(event)
        if picture is not None:
            data[picture] = self._uploaded(data[picture])
        _check_files([*(value for at, value in enumerate(data) if at != picture), more])
        return {key: said.get(key) for key in _SAID}

    def _uploaded(self, value: Any) -> dict[str, Any] | None:
        """A picture as Gradio knows it; none where it is no longer kept."""
        if value is None:
            return None
        named = value.get("path") if isinstance(value, dict) else None
        place = os.path.normpath(named) if isinstance(named, str) else ""
        if not Path(place).is_relative_to(self._uploads.folder):
            raise Refused(403, "expected a picture that was uploaded, got another file or an address")
        if os.path.isfile(place):  # noqa: PTH113 - which, other than Path's, takes a name of any length
            return {"path": place, "meta": {"_type": "gradio.FileData"}}
        if os.path.lexists(place):
            raise Refused(403, "expected a picture that was uploaded, got a folder")
        return None


def _check_files(values: list[Any]) -> None:
    """Refuse files where none belong. Gradio looks for files at any depth."""
    for _ in range(_DEEP):
        inner: list[Any] = []
        for value in values:
            if isinstance(value, list):
                inner += value
            elif isinstance(value, dict):
                inner += value.values()
                if "path" in value:
                    raise Refused(403, "expected a picture that was uploaded in its own place, got a file elsewhere")
        values = inner
    if values:
        raise Refused(400, "expected an event with values that lie less deep")


async def _read(receive: Receive) -> bytes:
    """The body."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > _MOST:
            raise Refused(413, "expected less")
        if not message.get("more_body", False):  # nor is there after a disconnect
            return bytes(body)


def _noted(send: Send) -> tuple[Send, Callable[[], bool]]:
    """The same, and whether an answer has begun."""
    begun = False

    async def noted(message: Message) -> None:
        nonlocal begun
        begun = True
        await send(message)

    return noted, lambda: begun


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
