"""No event of the page makes the server fetch an address, and none is larger than events are."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

pytest.importorskip("gradio")

from cliper.web.page.closed import NoFetching

FILE = {"path": "http://example.com/x", "meta": {"_type": "gradio.FileData"}}


def asked(body: bytes, path: str = "/gradio_api/queue/join", chunk: int = 1000) -> tuple[int, bytes]:
    """The status, and what of the body came through to the page."""
    got, statuses = bytearray(), []
    pieces = [body[start : start + chunk] for start in range(0, len(body), chunk)] or [b""]
    messages = [
        {"type": "http.request", "body": piece, "more_body": number < len(pieces) - 1}
        for number, piece in enumerate(pieces)
    ]

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def page(scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            got.extend(message["body"])
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    scope = {"type": "http", "method": "POST", "path": path, "headers": []}
    asyncio.run(NoFetching(page)(scope, receive, send))
    return statuses[0], bytes(got)


@pytest.mark.parametrize("position", range(12))
def test_no_input_may_be_a_file_at_an_address(position: int) -> None:
    data: list[Any] = [None] * 12
    data[position] = FILE
    assert asked(json.dumps({"data": data, "fn_index": 0}).encode()) == (403, b"")
    data[position] = [{"deep": [FILE]}]
    assert asked(json.dumps({"data": data}).encode().replace(b"://", b"\\u003a//")) == (403, b"")


def test_what_the_page_sends_comes_through_whole() -> None:
    upload = {"path": "/tmp/uploads/a.png", "url": "http://127.0.0.1:7860/gradio_api/file=/tmp/uploads/a.png"}
    body = json.dumps({"data": [upload, ["dog", "http://a.class"]]}).encode()
    assert asked(body, chunk=7) == (200, body)
    assert asked(b"no json") == (200, b"no json")


def test_an_event_is_not_large_but_an_upload_may_be() -> None:
    body = json.dumps({"data": ["x" * 2**20]}).encode()
    assert asked(body) == (413, b"")
    assert asked(body, "/gradio_api/run/upload") == (413, b"")
    assert asked(json.dumps({"data": [FILE]}).encode(), "/gradio_api/call/upload") == (403, b"")
    assert asked(body, "/gradio_api/upload") == (200, body)
