"""The uvicorn server, with limits on idle connections."""

from __future__ import annotations

import asyncio
import errno
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import uvicorn

from cliper.server.app import create_app
from cliper.server.service import MAX_RETRY_SECONDS, Service

__all__ = ["Server"]

# From a connection's start, or its last response, to the next request: a client that got Retry-After finds its
# connection open when it asks again.
_IDLE_SECONDS = MAX_RETRY_SECONDS + 15
_FLUSH_SECONDS = 5  # for clients to read responses while the server stops
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_SPARE_FILES = 64  # descriptors for other purposes than connections


class Server(uvicorn.Server):
    """Serves until ``should_exit`` is set, then finishes the requests that it has accepted.

    Connections that wait for a request for too long are closed, however slowly its headers arrive, and the oldest of
    them if there are more than the limit on open files allows.

    Args:
        service: has been entered.
        ready: called once requests are accepted.
    """

    def __init__(self, service: Service, ready: Callable[[], None]) -> None:
        config = uvicorn.Config(
            create_app(service),
            http="h11",
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",  # malformed requests are not logged; defects are
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=math.ceil(service.model.limits.seconds) + _FLUSH_SECONDS,
        )
        super().__init__(config)
        self._ready = ready
        self._idle: dict[Any, tuple[object, float]] = {}  # connection -> its last request, and when it was seen
        self._max_connections = _max_connections()
        self._last_warning = float("-inf")

    async def startup(self, sockets: Any = None) -> None:
        """Start to accept connections."""
        await super().startup(sockets)
        asyncio.get_running_loop().set_exception_handler(self._on_loop_error)
        self._ready()

    async def on_tick(self, counter: int) -> bool:
        """Close idle connections; called ten times a second."""
        now, idle = time.monotonic(), {}
        connection: Any
        for connection in self.server_state.connections:
            if connection.cycle is None or connection.cycle.response_complete:
                known = self._idle.get(connection, (None, now))
                idle[connection] = known if known[0] is connection.cycle else (connection.cycle, now)
        self._idle = idle
        excess = len(self.server_state.connections) - self._max_connections
        for number, (connection, (_, since)) in enumerate(sorted(idle.items(), key=lambda item: item[1][1])):
            if now - since > _IDLE_SECONDS or number < excess:
                connection.transport.abort()
        return await super().on_tick(counter)

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """asyncio reports each connection that it could not accept; one line a minute says enough."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in _OUT_OF_FILES:
            loop.default_exception_handler(context)
        elif time.monotonic() - self._last_warning > 60:
            self._last_warning = time.monotonic()
            print(f"cannot accept connections: {error.strerror}; raise the limit on open files", file=sys.stderr)


def _max_connections() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return sys.maxsize
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if limit == resource.RLIM_INFINITY else max(1, limit - _SPARE_FILES)
