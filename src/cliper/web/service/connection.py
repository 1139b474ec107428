"""Connections: who connects and asks nothing whole, or does not read its answer, is let go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from cliper.web.service.service import LONGEST_WAIT

__all__ = ["CUT", "PATIENCE", "Connection", "cut"]

CUT = "cliper.cut"
"""Of a scope's extensions: ends the connection, with what it was still to send."""

PATIENCE = LONGEST_WAIT + 15.0
"""Seconds from a connection's start, or its last answer, to the next request's headers."""


class Connection(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it, with a limit on the time for a request's headers, however slowly they trickle.

    Requests find under :data:`CUT` how to end their connection.
    """

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.app = _with_cut(self.app, transport.abort)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait_no_more()

    def on_response_complete(self) -> None:
        """An answer has been handed over."""
        super().on_response_complete()  # takes the next request, if it is there already
        self._wait_no_more()
        if self.cycle.response_complete:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(PATIENCE, self._let_go)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _let_go(self) -> None:
        if self.transport.get_write_buffer_size():  # of an answer that is not read: closing would wait for it
            self.transport.abort()
        else:
            self.transport.close()


async def cut(scope: Scope) -> None:
    """End a request's connection at once; without a server beneath, as in tests, there is none."""
    end: Callable[[], None] | None = scope.get("extensions", {}).get(CUT)
    if end is not None:
        end()
        await asyncio.sleep(0)  # so that the server notices before it looks for the rest of the answer


def _with_cut(app: Any, end: Callable[[], None]) -> ASGIApp:
    async def handed(scope: Scope, receive: Receive, send: Send) -> None:
        scope = {**scope, "extensions": {**scope.get("extensions", {}), CUT: end}}
        await app(scope, receive, send)

    return handed
