"""Gradio fetches what stands behind ``/file=https://...`` for whoever asks. Here nobody's address is opened."""

from __future__ import annotations

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["NoFetching"]

_FETCHING = ("/file=http:", "/file=https:", "/proxy=")


class NoFetching:
    """Refuses requests that would make the server fetch something."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """403 for them, the page for all others."""
        path = str(scope.get("path", "")).lower().replace(" ", "")
        if scope["type"] == "http" and any(part in path for part in _FETCHING):
            await PlainTextResponse("no address is fetched here", status_code=403)(scope, receive, send)
            return
        await self.app(scope, receive, send)
