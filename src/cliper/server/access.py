"""Who may send requests: the listening socket, the token, and the check of Host and Origin."""

import ipaddress
import re
import secrets
import socket
import time

from fastapi import HTTPException
from fastapi.security import HTTPBasic, HTTPBearer
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cliper.errors import InputError
from cliper.server.service import Service

__all__ = ["AccessMiddleware", "TokenAuth", "is_loopback", "listen"]

_METHODS = ("GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS")
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="cliper"'}  # for Basic a browser shows its own dialog before the page's
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
        basic = None if bearer else await HTTPBasic(auto_error=False)(request)
        given = bearer.credentials if bearer else basic.password if basic else request.headers.get("Token", "")
        if not secrets.compare_digest(given.encode(), self._token.encode()):
            raise HTTPException(401, "expected 'Authorization: Bearer TOKEN' with this server's token", _CHALLENGE)


class AccessMiddleware:
    """ASGI middleware: refuses requests that a page of another site makes, adds security headers, and counts responses.

    A page can make a browser send requests here: to another origin (refused by the Origin header), or after its own
    name was rebound to 127.0.0.1 (refused by the Host header, which then is that name).
    """

    def __init__(self, app: ASGIApp, *, service: Service) -> None:
        self._app, self._service = app, service

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

        refusal = self._refusal(Headers(scope=scope), scope["method"])
        app = JSONResponse({"error": refusal[1]}, refusal[0], {"Connection": "close"}) if refusal else self._app
        try:
            await app(scope, receive, send_with_headers)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._service.metrics.requests.labels(path, method, str(status)).inc()
            self._service.metrics.seconds.labels(path).observe(time.perf_counter() - started)

    def _refusal(self, headers: Headers, method: str) -> tuple[int, str] | None:
        """Status and message of a request that is refused."""
        host, origin = headers.get("host", ""), headers.get("origin")
        own = headers.get("x-forwarded-host", host)  # a proxy in front names the host that it was asked for
        known = (None, f"http://{own}", f"https://{own}", *self._service.origins)
        if "content-length" in headers and "transfer-encoding" in headers:  # request smuggling
            return 400, "expected Content-Length or Transfer-Encoding, got both"
        if self._service.loopback_only and not is_loopback(re.sub(r":\d*$", "", host)):
            return 403, "expected a Host header that names this machine, got another; open http://localhost instead"
        if origin not in known and method not in ("GET", "HEAD"):
            return 403, "expected a request of this server's own page, got one of another site; see --cors-origin"
        return None
