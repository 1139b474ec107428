"""Requests that are answered before they were read."""

from __future__ import annotations

import asyncio

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Receive, Send

__all__ = ["PATIENCE", "draining"]

PATIENCE = 2.0
"""Seconds in which the body of a request that has its answer may end."""


def draining(receive: Receive, send: Send) -> tuple[Receive, Send]:
    """The same two, such that an answer reaches a client that is still sending.

    It often reads no answer before it has sent all, and a connection that is closed on it looks like a fault. So
    before an answer begins, the rest of the body is read and thrown away; if it does not end within
    :data:`PATIENCE`, the connection is closed after the answer.
    """
    ended = False

    async def watched() -> Message:
        nonlocal ended
        message = await receive()
        ended = ended or message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def rest() -> None:
        while not ended:
            await watched()

    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start" and not ended:
            try:
                await asyncio.wait_for(rest(), PATIENCE)
            except TimeoutError:
                MutableHeaders(scope=message)["Connection"] = "close"
        await send(message)

    return watched, answer
