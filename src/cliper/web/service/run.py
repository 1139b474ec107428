"""The process: an address to listen at, and an end that finishes what was begun."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from cliper.web.hosts import allow_restart
from cliper.web.service.app import create_app
from cliper.web.service.connection import PATIENCE, Connection
from cliper.web.service.service import Service

__all__ = ["patient", "serve"]

_SEND_BUFFER = 256 * 1024  # bytes of answers that the system holds for a client, at least; Linux doubles it
_LAST_BYTES = 5  # seconds in which answers that are made are to be taken
_FAREWELL = 0.5  # seconds, at least, in which clients that keep a connection are told that it ends


def serve(service: Service, place: socket.socket, *, ready: Callable[[str], None]) -> None:
    """Answer requests until SIGTERM or SIGINT, then finish those that were let in; a second
    signal ends as soon as the model is done with what it has before it.

    Args:
        service: has been entered.
        place: from :func:`cliper.web.hosts.listen`.
        ready: called with the address once requests are taken.
    """
    config = uvicorn.Config(
        create_app(service),
        http=Connection,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # strangers' broken requests are no news; what broke here is
        access_log=False,
        server_header=False,
        proxy_headers=False,
        # Who is told to stay away for a while finds the connection open when it comes again.
        timeout_keep_alive=round(PATIENCE),
        timeout_graceful_shutdown=_LAST_BYTES,
    )
    place.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)  # connections get the same
    host, port = place.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    _Server(config, service, lambda: ready(address)).run(sockets=[place])


@contextmanager
def patient(service: Service) -> Iterator[None]:
    """In the block, whose last part is the service's own end, signals do not break off what the model has begun.

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
    """Still answers while it ends, so that a load balancer sees ``/readyz`` change and clients are told to go."""

    def __init__(self, config: uvicorn.Config, service: Service, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._ready = service, ready
        self._told = float("inf")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or ():
            allow_restart(listening)
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.stopping:
            self.should_exit = self.force_exit = True
        self._service.stopping = True
        self._told = time.monotonic()

    async def on_tick(self, counter: int) -> bool:
        stopping = time.monotonic() - self._told
        longest = 2 * self._service.served.limits.seconds + _FAREWELL  # to be answered, and for the answer to be read
        if stopping > longest or (stopping > _FAREWELL and not self._service.inside):
            return True
        return await super().on_tick(counter)
