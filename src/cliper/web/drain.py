"""Requests that are answered before they were read."""

from __future__ import annotations

import asyncio

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Receive, Scope, Send

__all__ = ["PATIENCE", "draining"]

PATIENCE = 2.0
"""Seconds in which the body of a request that has its answer may end."""


def draining(scope: Scope, receive: Receive, send: Send) -> tuple[Receive, Send]:
    """The last two, such that an answer reaches a client that is still sending.

    It often reads no answer before it has sent all, and a connection that is closed on it looks like a fault. So
    before an answer begins, the rest of the body is read and thrown away; if it does not end within
    :data:`PATIENCE`, the connection is closed after the answer. A client that has asked whether to send at all, and was
    not told to, is not told now.
    """
    asks = any(name.lower() == b"expect" for name, _ in scope["headers"])
    begun = ended = False

    async def watched() -> Message:
        nonlocal begun, ended
        begun = True
        message = await receive()
        ended = ended or message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def rest() -> None:
        while not ended:
            await watched()

    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start" and not ended:
            headers = MutableHeaders(scope=message)
            if asks and not begun:
                headers["Connection"] = "close"
            elif "Connection" not in headers:  # otherwise it is to be closed in any case
                try:
                    await asyncio.wait_for(rest(), PATIENCE)
                except TimeoutError:
                    headers["Connection"] = "close"
        await send(message)

    return watched, answer
