"""The server process: listening, idle connections, and a graceful stop."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import Scope

from cliper.server.admission import MAX_RETRY_SECONDS, Service
from cliper.server.app import create_app
from cliper.server.hosts import allow_restart

__all__ = ["ignore_signals", "serve"]

_SEND_BUFFER = 256 * 1024  # bytes of a response that the system buffers for a client, at least; Linux doubles it
_FLUSH_SECONDS = 5  # for clients to read finished responses while the server stops
_DRAIN_SECONDS = 0.5  # minimum time in which clients with an open connection are told that the server stops
_HEADER_SECONDS = MAX_RETRY_SECONDS + 15.0  # from a connection's start, or its last response, to the next request
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_SPARE_FILES = 64  # descriptors for other purposes than connections


def serve(service: Service, listening: socket.socket, *, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, then finish admitted requests; a second signal stops as soon as the model has
    finished its current batch.

    Args:
        service: has been entered.
        listening: from :func:`cliper.server.hosts.listen`.
        ready: called with the address once requests are accepted.
    """
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
        # A client that got Retry-After finds its connection open when it asks again.
        timeout_keep_alive=round(_HEADER_SECONDS),
        timeout_graceful_shutdown=_FLUSH_SECONDS,
        backlog=128,
    )
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)  # connections inherit it
    host, port = listening.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    _Server(config, service, lambda: ready(address)).run(sockets=[listening])


@contextmanager
def ignore_signals(service: Service) -> Iterator[None]:
    """In the block, which ends with the service's exit, signals do not interrupt the model's current batch.

    For the main thread.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def handle(number: int, frame: FrameType | None) -> None:
        if not service.stopping:  # it has not begun to serve
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)

    for number in numbers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, before[number])


class _Server(uvicorn.Server):
    """Keeps answering while it stops, so that a load balancer sees ``/readyz`` change; closes idle connections."""

    def __init__(self, config: uvicorn.Config, service: Service, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._ready = service, ready
        self._stop_time = float("inf")
        self._out_of_files_logged = float("-inf")
        self._idle_since: dict[Any, tuple[object, float]] = {}  # connection -> its last request, and when it was seen
        self._max_connections = _max_connections()
        service.abort_connection = self._abort_connection

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        asyncio.get_running_loop().set_exception_handler(self._on_loop_error)
        for listening in sockets or ():
            allow_restart(listening)
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.stopping:
            self.should_exit = self.force_exit = True
        self._service.stopping = True
        self._stop_time = time.monotonic()

    async def on_tick(self, counter: int) -> bool:
        self._close_idle_connections()
        stopping = time.monotonic() - self._stop_time
        longest = 2 * self._service.model.limits.seconds + _DRAIN_SECONDS  # for the response, and for reading it
        if stopping > longest or (stopping > _DRAIN_SECONDS and not self._service.in_flight):
            return True
        return await super().on_tick(counter)

    def _close_idle_connections(self) -> None:
        """Close connections that wait for a request for too long, however slowly its headers arrive, or if there are
        too many; abort those whose client does not read the end of a response."""
        now = time.monotonic()
        connections: set[Any] = self.server_state.connections
        idle: dict[Any, tuple[object, float]] = {}
        for connection in list(connections):
            if connection.cycle is None or connection.cycle.response_complete:
                known = self._idle_since.get(connection, (None, now))
                idle[connection] = known if known[0] is connection.cycle else (connection.cycle, now)
        excess = len(connections) - self._max_connections
        for number, (connection, (_, since)) in enumerate(sorted(idle.items(), key=lambda item: item[1][1])):
            if now - since > _HEADER_SECONDS or number < excess:
                connection.transport.abort()
        self._idle_since = idle

    def _abort_connection(self, scope: Scope) -> None:
        connection: Any
        for connection in list(self.server_state.connections):
            if connection.client == scope.get("client"):
                connection.transport.abort()

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """asyncio reports each connection that it could not accept; one line a minute says enough."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in _OUT_OF_FILES:
            loop.default_exception_handler(context)
        elif time.monotonic() - self._out_of_files_logged > 60:
            self._out_of_files_logged = time.monotonic()
            print(f"cannot accept connections: {error.strerror}; raise the limit on open files", file=sys.stderr)


def _max_connections() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return sys.maxsize
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if limit == resource.RLIM_INFINITY else max(1, limit - _SPARE_FILES)
