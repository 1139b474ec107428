"""Around everything: what a request holds is given back with the last byte of its answer, and sending has a limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cliper.web.drain import draining
from cliper.web.service.connection import cut
from cliper.web.service.service import Service

__all__ = ["Wire", "ends_of"]

_PIECE = 64 * 1024  # bytes; about what a server takes from us before it lets us wait for the client
_ENDS = "cliper.ends"


def ends_of(request: Request) -> ExitStack:
    """Where to put what is to end when the answer to a request has been sent, or its connection has ended."""
    ends: ExitStack = request.scope[_ENDS]
    return ends


class Wire:
    """ASGI middleware: counts answers, and sees them off.

    An answer goes out in pieces, each when the client has taken most of what was before it. A client that does not
    take all of it within the time limit of a request is cut off.

    Args:
        app: what answers.
        service: whose metrics are kept; while it stops, every answer is the last of its connection.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500
        deadline: float | None = None

        async def see_off(message: Message) -> None:
            nonlocal status, deadline
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._service.stopping:
                    MutableHeaders(scope=message)["Connection"] = "close"
                deadline = asyncio.get_running_loop().time() + self._service.served.limits.seconds
            try:
                async with asyncio.timeout_at(deadline):
                    for piece in _pieces(message):
                        await send(piece)
            except TimeoutError:
                self._service.metrics.cut.inc()
                await cut(scope)

        receive, answer = draining(scope, receive, see_off)
        with ExitStack() as ends:
            scope[_ENDS] = ends
            try:
                await self._app(scope, receive, answer)
            except asyncio.CancelledError:
                if not self._service.stopping:
                    raise
                if deadline is None:  # no answer has begun
                    await _ended(scope, receive, see_off)
            finally:
                route = scope.get("route")
                path = getattr(route, "path", "other")
                self._service.metrics.answered(path, scope["method"], status, time.perf_counter() - started)


async def _ended(scope: Scope, receive: Receive, send: Send) -> None:
    """What those are told who were let in, and are not waited for after a second signal."""
    ended = JSONResponse({"error": "this service was ended before it was done; ask again later"}, 503)
    await ended(scope, receive, send)


def _pieces(message: Message) -> Iterator[Message]:
    """A large body in parts, the last of them empty: that one can only be sent once most of the others are gone."""
    body = message.get("body", b"")
    if len(body) <= _PIECE:
        yield message
        return
    for at in range(0, len(body), _PIECE):
        yield {**message, "body": body[at : at + _PIECE], "more_body": True}
    yield {**message, "body": b""}
