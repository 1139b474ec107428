"""Who may send requests: the listening socket, the token, and the check of Host and Origin."""

from __future__ import annotations

import ipaddress
import re
import secrets
import socket
import time
from collections.abc import Callable

from fastapi import HTTPException
from fastapi.security import HTTPBasic, HTTPBearer
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cliper.errors import InputError

__all__ = ["AccessMiddleware", "TokenAuth", "is_loopback", "listen"]

_BASIC = HTTPBasic(auto_error=False)
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="cliper", Basic realm="cliper"'}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


def is_loopback(host: str) -> bool:
    """Whether a host is reachable from this machine only; names other than ``localhost`` are not resolved.

    Example:
        >>> [is_loopback(host) for host in ("127.0.0.1", "[::1]", "localhost", "0.0.0.0", "127.example.com")]
        [True, True, True, False, False]
    """
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at a name or an address of this machine; connections wait until the server runs.

    Raises:
        InputError: an address that is not this machine's, or that is in use.
    """
    host = host.strip("[]")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=128)
    except (OSError, UnicodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot listen at {host} port {port}: {reason}; choose another --host or --port") from None
    # Connections inherit it. Without it a response in two parts waits for the client's delayed acknowledgement.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
    return listening


class TokenAuth(HTTPBearer):
    """FastAPI dependency that requires a token, unless it is None.

    Clients send it as ``Authorization: Bearer TOKEN``, as the password of ``Basic`` (Label Studio), or in the header
    ``Token`` (X-AnyLabeling).
    """

    def __init__(self, token: str | None) -> None:
        super().__init__(auto_error=False)
        self._token = token

    async def __call__(self, request: Request) -> None:  # type: ignore[override]
        """Raise a 401 unless one of the credentials is the token."""
        if self._token is None:
            return
        bearer = await super().__call__(request)
        basic = None if bearer else await _BASIC(request)
        given = bearer.credentials if bearer else basic.password if basic else request.headers.get("Token", "")
        if not secrets.compare_digest(given.encode(), self._token.encode()):
            raise HTTPException(401, "expected 'Authorization: Bearer TOKEN' with this server's token", _CHALLENGE)


class AccessMiddleware:
    """ASGI middleware: refuses requests that a page of another site makes, adds security headers, and counts responses.

    A page can make a browser send requests here: to another origin (refused by the Origin header), or after its own
    name was rebound to 127.0.0.1 (refused by the Host header, which then is that name).

    Args:
        app: the application.
        loopback_only: require a Host that names this machine.
        origins: other origins that may send requests.
        record: called with path, method, status and seconds of each response.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        loopback_only: bool,
        origins: tuple[str, ...],
        record: Callable[[str, str, int, float], None],
    ) -> None:
        self._app, self._loopback_only, self._origins, self._record = app, loopback_only, origins, record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        try:
            await (self._refusal(scope) or self._app)(scope, receive, send_with_headers)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            self._record(path, scope["method"], status, time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        own = headers.get("x-forwarded-host", host)  # a proxy in front names the host that it was asked for
        foreign = origin not in (None, f"http://{own}", f"https://{own}", *self._origins)
        if "content-length" in headers and "transfer-encoding" in headers:  # request smuggling
            error = "expected Content-Length or Transfer-Encoding, got both"
            return JSONResponse({"error": error}, 400, {"Connection": "close"})
        if self._loopback_only and not is_loopback(re.sub(r":\d*$", "", host)):
            error = "expected a Host header that names this machine, got another; open http://localhost instead"
            return JSONResponse({"error": error}, 403)
        if foreign and scope["method"] not in ("GET", "HEAD"):
            error = "expected a request of this server's own page, got one of another site; see --cors-origin"
            return JSONResponse({"error": error}, 403)
        return None
