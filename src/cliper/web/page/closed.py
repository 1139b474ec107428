"""Gradio fetches an address that stands behind ``/file=``, or in place of a file, for whoever asks. Not here."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["NoFetching"]

_FETCHING = ("/file=http:", "/file=https:", "/proxy=")

_UPLOADS = "/gradio_api/upload"  # the whole of it: the last part of others is a name of the caller's

# What a page's event may say at most, in bytes. Pictures are uploaded, and have a limit of their own.
_MOST = 2**20


class NoFetching:
    """Refuses requests that would make the server fetch something, and events that are too large to be the page's."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """403 or 413 for them, the page for all others."""
        path = str(scope.get("path", "")).lower().replace(" ", "")
        if scope["type"] == "http" and any(part in path for part in _FETCHING):
            await PlainTextResponse("no address is fetched here", status_code=403)(scope, receive, send)
            return
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD") and not path.endswith(_UPLOADS):
            body = await _read(receive)
            if body is None:
                await PlainTextResponse("expected less", status_code=413)(scope, receive, send)
                return
            if _names_an_address(body):
                await PlainTextResponse("no address is fetched here", status_code=403)(scope, receive, send)
                return
            receive = _once_more(body, receive)
        await self.app(scope, receive, send)


async def _read(receive: Receive) -> bytes | None:
    """The body; None if it is too large."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > _MOST:
            return None
        if not message.get("more_body", False):  # nor is there after a disconnect
            return bytes(body)


def _once_more(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _names_an_address(body: bytes) -> bool:
    """Whether a file in an event's data is said to lie at an address. Gradio looks for files at any depth."""
    try:
        left: list[Any] = [json.loads(body)]
    except RecursionError:
        return True
    except ValueError:
        return False  # no JSON: Gradio refuses it
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if isinstance(value.get("path"), str) and "://" in value["path"]:
                return True
            left += value.values()
        elif isinstance(value, list):
            left += value
    return False
