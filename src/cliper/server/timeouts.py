"""Timeouts of sending a response and of draining a request body."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cliper.server.admission import Service

__all__ = ["TimeoutMiddleware", "drain_request_body", "exit_stack"]

_DRAIN_SECONDS = 2.0
_PIECE = 64 * 1024  # bytes; about what a server buffers before it waits for the client
_EXIT_STACK = "cliper.exit_stack"


def exit_stack(request: Request) -> ExitStack:
    """Contexts that end when the response to a request has been sent, or its connection has ended."""
    stack: ExitStack = request.scope[_EXIT_STACK]
    return stack


class TimeoutMiddleware:
    """ASGI middleware: records metrics and enforces a send timeout.

    A response is sent in pieces, each when the client has read most of the previous ones. The connection of a client
    that has not read all of it within the time limit of a request is aborted.

    Args:
        app: the application.
        service: its metrics are recorded; while it stops, each response closes its connection.
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

        async def send_split(message: Message) -> None:
            nonlocal status, deadline
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._service.stopping:
                    MutableHeaders(scope=message)["Connection"] = "close"
                deadline = asyncio.get_running_loop().time() + self._service.model.limits.seconds
            try:
                async with asyncio.timeout_at(deadline):
                    for piece in _split_body(message):
                        await send(piece)
            except TimeoutError:
                self._service.metrics.slow_clients.inc()
                self._service.abort_connection(scope)
                await asyncio.sleep(0)  # so that the server notices before the rest of the response is sent

        receive, drained_send = drain_request_body(scope, receive, send_split)
        headers = Headers(scope=scope)
        app = self._app
        if "content-length" in headers and "transfer-encoding" in headers:  # request smuggling
            message = "expected Content-Length or Transfer-Encoding, got both"
            app = JSONResponse({"error": message}, 400, {"Connection": "close"})
        with ExitStack() as stack:
            scope[_EXIT_STACK] = stack
            try:
                await app(scope, receive, drained_send)
            except asyncio.CancelledError:
                if not self._service.stopping:
                    raise
                if deadline is None:  # no response has begun: a second signal ended the server
                    message = "this server stopped before the response was ready; ask again later"
                    await JSONResponse({"error": message}, 503)(scope, receive, send_split)
            finally:
                path = getattr(scope.get("route"), "path", "other")
                self._service.metrics.record(path, scope["method"], status, time.perf_counter() - started)


def _split_body(message: Message) -> Iterator[Message]:
    """A large body in pieces, the last one empty: it can only be sent once most of the others have been read."""
    body = message.get("body", b"")
    if len(body) <= _PIECE:
        yield message
        return
    for at in range(0, len(body), _PIECE):
        yield {**message, "body": body[at : at + _PIECE], "more_body": True}
    yield {**message, "body": b""}


def drain_request_body(scope: Scope, receive: Receive, send: Send) -> tuple[Receive, Send]:
    """Wrap ``receive`` and ``send`` such that a response reaches a client that is still sending its body.

    Many clients read no response before they have sent everything, and see a closed connection as a fault. So the rest
    of the body is read and discarded before a response starts; if it does not end within 2 seconds, the connection is
    closed after the response. A client that sent ``Expect: 100-continue`` and got no 100 sends no body.
    """
    expects = any(name.lower() == b"expect" for name, _ in scope["headers"])
    started = ended = False

    async def watched() -> Message:
        nonlocal started, ended
        started = True
        message = await receive()
        ended = ended or message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def drain() -> None:
        while not ended:
            await watched()

    async def drain_and_send(message: Message) -> None:
        if message["type"] == "http.response.start" and not ended:
            headers = MutableHeaders(scope=message)
            if expects and not started:
                headers["Connection"] = "close"
            elif "Connection" not in headers:  # otherwise it is closed in any case
                try:
                    await asyncio.wait_for(drain(), _DRAIN_SECONDS)
                except TimeoutError:
                    headers["Connection"] = "close"
        await send(message)

    return watched, drain_and_send
