"""Listening sockets, and the check of Host and Origin headers."""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cliper.errors import InputError

__all__ = ["HostCheckMiddleware", "allow_restart", "is_loopback", "listen"]

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def is_loopback(host: str) -> bool:
    """Whether a host is reachable from this machine only; names other than ``localhost`` are not resolved.

    Example:
        >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "127.example.com")]
        [True, True, True, False, False]
    """
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    inner = getattr(address, "ipv4_mapped", None)  # Python resolves it by itself from 3.13 on
    return (inner or address).is_loopback


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; it does not accept connections yet.

    Args:
        host: a name or an address of this machine.
        port: 0 takes a free one.

    Raises:
        InputError: an address that is not this machine's, or that is in use.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        try:
            return _bind(family, address, reuse=False)
        except OSError:
            if sys.platform == "win32":
                raise
            # Connections of a server that has just ended may still be closing. Not the first attempt: two servers
            # that bind with SO_REUSEADDR get the same address as long as neither listens.
            return _bind(family, address, reuse=True)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot listen at {host} port {port}: {reason}; choose another --host or --port") from None


def allow_restart(listening: socket.socket) -> None:
    """Set SO_REUSEADDR, so that the next server can bind while connections of this one are closing.

    Accepted connections inherit the option, and only then can their address be bound before they have ended (60 s on
    Linux). Call it once the socket listens: before that a second server could bind the address too.
    """
    if sys.platform != "win32":  # there other processes could take the address over
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)


def _bind(family: int, address: Any, *, reuse: bool) -> socket.socket:
    # With the protocol named, asyncio sets TCP_NODELAY on connections; with 0 it does not, and a response in two parts
    # waits for the client's delayed acknowledgement.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


class HostCheckMiddleware:
    """ASGI middleware: refuses requests that a page of another site makes, and adds security headers.

    A page can make a browser send requests here: to another origin (refused by the Origin header), or after its own
    name was rebound to 127.0.0.1 (refused by the Host header, which then is that name).

    Args:
        app: the application.
        loopback_only: require a Host that names this machine.
        origins: other origins that may send requests.
    """

    def __init__(self, app: ASGIApp, *, loopback_only: bool, origins: Collection[str] = ()) -> None:
        self._app, self._loopback_only, self._origins = app, loopback_only, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        app = self._app
        if self._loopback_only and not is_loopback(_hostname(host)):
            app = _error("expected a Host header that names this machine, got another; open http://localhost instead")
        elif origin is not None and scope["method"] not in ("GET", "HEAD") and not self._is_own(origin, headers):
            app = _error("expected a request of this server's own page, got one of another site; see --cors-origin")
        await app(scope, receive, send_with_headers)

    def _is_own(self, origin: str, headers: Headers) -> bool:
        # A proxy in front names the host that it was asked for.
        host = headers.get("x-forwarded-host") or headers.get("host", "")
        return origin in self._origins or urlsplit(origin).netloc.lower() == host.lower()


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _error(message: str) -> ASGIApp:
    return JSONResponse({"error": message}, 403)
