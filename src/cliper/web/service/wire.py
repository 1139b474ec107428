"""Around everything: answers are counted, and what is left of a refused request's body is taken off the wire."""

from __future__ import annotations

import asyncio
import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cliper.web.service.service import Service

__all__ = ["Wire"]

_PATIENCE = 2.0  # seconds in which a refused body may end


class Wire:
    """ASGI middleware.

    A client that is still sending when it is refused often reads no answer before it has sent all. So for two
    seconds the rest is read and thrown away; if it does not end then, the connection is closed after the answer.

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
        status, ended = 500, False

        async def watched_receive() -> Message:
            nonlocal ended
            message = await receive()
            ended = ended or message["type"] != "http.request" or not message.get("more_body", False)
            return message

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                if self._service.stopping:
                    headers["Connection"] = "close"
                if not ended and "Connection" not in headers and not await self._finish(watched_receive):
                    headers["Connection"] = "close"
            await send(message)

        try:
            await self._app(scope, watched_receive, watched_send)
        finally:
            route = scope.get("route")
            path = getattr(route, "path", "other")
            self._service.metrics.answered(path, scope["method"], status, time.perf_counter() - started)

    async def _finish(self, receive: Receive) -> bool:
        """Whether the body ended soon."""
        try:
            async with asyncio.timeout(_PATIENCE):
                while True:
                    message = await receive()
                    if message["type"] != "http.request" or not message.get("more_body", False):
                        return True
        except TimeoutError:
            return False
