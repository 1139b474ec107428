"""Who may ask the page's server: pages of its own, and on loopback only those who know it by a name of this machine."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from cliper.web.drain import draining
from cliper.web.hosts import is_loopback
from cliper.web.page.refused import Refused

__all__ = ["Door"]

# Of headers that Gradio believes: where a server in front of it is, and which part of a file is wanted. Nothing here
# sends them, and what they may hold ends in tracebacks.
_UNHEARD = (b"x-gradio-server", b"range", b"if-range")


class Door:
    """ASGI middleware in front of all of Gradio's own.

    Args:
        app: what is behind it.
        local: whether the page is for this machine only. A page of somebody else whose name has come to mean
            127.0.0.1 (DNS rebinding) is not answered then.
    """

    def __init__(self, app: ASGIApp, *, local: bool) -> None:
        self._app, self._local = app, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it: 400 or 403."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] not in ("GET", "HEAD"):
            receive, send = draining(scope, receive, send)
        try:
            self._check(Headers(scope=scope), scope["method"])
        except Refused as refused:
            await refused.answer()(scope, receive, send)
            return
        headers = [(name, value) for name, value in scope["headers"] if name.lower() not in _UNHEARD]
        await self._app({**scope, "headers": headers}, receive, send)

    def _check(self, headers: Headers, method: str) -> None:
        host = _netloc(headers.get("host", ""))
        here = is_loopback(_name(host))
        if self._local and not here:
            raise Refused(403, "expected a Host of this machine, such as localhost; the page is served to nobody else")
        # What a server in front says that it was asked for. Gradio makes addresses of it.
        said = ",".join(headers.getlist("x-forwarded-host")).split(",")
        fronts = [_netloc(front.strip()) for front in said if front.strip()]
        origin = headers.get("origin")
        if method in ("GET", "HEAD") or origin is None:
            return
        # A page of somebody else cannot say X-Forwarded-Host to this machine: it would have to ask first.
        if origin.lower().partition("://")[2] not in (host, *(fronts if here else [])):
            raise Refused(403, "expected a request of this page, got one of another site's")


def _netloc(host: str) -> str:
    """A host with its port, if it has one, as lower-case letters."""
    try:
        if httpx.URL(f"http://{host}/").netloc and urlsplit(f"http://{host}/").netloc == host and "@" not in host:
            return host.lower()
    except (httpx.InvalidURL, ValueError):
        pass
    raise Refused(400, "expected a Host, got none or one that cannot be read")


def _name(host: str) -> str:
    return urlsplit(f"http://{host}/").hostname or ""
