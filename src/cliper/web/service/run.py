"""The process: an address to listen at, and an end that finishes what was begun."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

from cliper.errors import InputError
from cliper.web.service.app import create_app
from cliper.web.service.service import LONGEST_WAIT, Service

__all__ = ["listen", "serve"]

_LAST_BYTES = 5  # seconds in which answers that are made are to be taken
_FAREWELL = 0.5  # seconds, at least, in which clients that keep a connection are told that it ends


def listen(host: str, port: int) -> socket.socket:
    """A socket for an address; nobody is let in yet.

    Args:
        host: a name or an address of this machine.
        port: 0 takes a free one.

    Raises:
        InputError: an address that is not this machine's, or that is in use.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        found = socket.socket(family, socket.SOCK_STREAM)
        if sys.platform != "win32":
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot listen at {host} port {port}: {reason}; choose another --host or --port") from None
    return found


def serve(service: Service, place: socket.socket, *, ready: Callable[[str], None]) -> None:
    """Answer requests until SIGTERM or SIGINT, then finish those that were let in; a second
    signal ends as soon as the model is done with what it has before it.

    Args:
        service: has been entered.
        place: from :func:`listen`.
        ready: called with the address once requests are taken.
    """
    config = uvicorn.Config(
        create_app(service),
        http="h11",
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        # Who is told to stay away for a while finds the connection open when it comes again.
        timeout_keep_alive=LONGEST_WAIT + 15,
        timeout_graceful_shutdown=_LAST_BYTES,
    )
    host, port = place.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    _Server(config, service, lambda: ready(address)).run(sockets=[place])


class _Server(uvicorn.Server):
    """Still answers while it ends, so that a load balancer sees ``/readyz`` change and clients are told to go."""

    def __init__(self, config: uvicorn.Config, service: Service, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._ready = service, ready
        self._told = float("inf")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.stopping:
            self.should_exit = self.force_exit = True
        self._service.stopping = True
        self._told = time.monotonic()

    async def on_tick(self, counter: int) -> bool:
        stopping = time.monotonic() - self._told
        longest = self._service.served.limits.seconds + _FAREWELL
        if stopping > longest or (stopping > _FAREWELL and not self._service.inside):
            return True
        return await super().on_tick(counter)
