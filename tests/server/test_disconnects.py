"""Slow, incomplete and too large bodies, and clients that disconnect."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from typing import Any

import pytest
from server_in_process import Connection, Waiting, until
from starlette.requests import Request

from cliper.server.errors import HTTPError
from cliper.server.parsing import read_segment_body

PIECE = 10_000  # bytes of a body that come together
JSON, FORM = "application/json", "multipart/form-data; boundary=b"
FIRST = {JSON: b'{"image": "', FORM: b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\n'}


class Large:
    """A body, and how many bytes of it were asked for."""

    def __init__(self, kind: str, pieces: int) -> None:
        self.taken, self.whole = 0, pieces * PIECE
        self._kind = kind

    async def receive(self) -> dict[str, Any]:
        body = bytes(PIECE) if self.taken else FIRST[self._kind].ljust(PIECE, b"A")
        self.taken += PIECE
        return {"type": "http.request", "body": body, "more_body": self.taken < self.whole}


@pytest.mark.parametrize("kind", [JSON, FORM])
@pytest.mark.parametrize("announced", [None, "100000", "100001", "9" * 4000])
def test_too_large_body_is_not_read_to_its_end(kind: str, announced: str | None) -> None:
    """By no more than the piece with which it became too large, and not at all if its header tells."""
    headers = [(b"content-type", kind.encode())]
    if announced is not None:
        headers.append((b"content-length", announced.encode()))
    body = Large(kind, 1000)
    request = Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, body.receive)
    with pytest.raises(HTTPError) as refusal:
        asyncio.run(read_segment_body(request, 100_000))
    assert refusal.value.status == 413
    assert body.taken == (100_000 + PIECE if announced in (None, "100000") else 0)


@pytest.mark.parametrize("kind", [JSON, FORM])
def test_rest_of_a_refused_body_is_not_kept_in_memory(start: Any, kind: str) -> None:
    """The rest is taken off the wire, so that the client reads its answer. Of 50 MB hardly anything stays."""
    service = start(megabytes=0.1)

    client, body = Connection(service.client.app, "/v1/segment", kind), Large(kind, 5000)
    tracemalloc.start()
    try:
        asyncio.run(asyncio.wait_for(client.run(body.receive), 60))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert client.answer[0] == 413
    assert body.taken == body.whole
    # 0.1 MB may be held, in two or three copies; and the answer takes some. All of it would be 50 MB.
    assert most < 2_000_000


@pytest.mark.parametrize("kind", [JSON, FORM])
def test_body_that_does_not_arrive_is_408(start: Any, kind: str) -> None:
    service = start(seconds=0.2)

    async def slow() -> Connection:
        client = Connection(service.client.app, "/v1/segment", kind)
        client.says(b"--b\r\n", True)
        await asyncio.wait_for(client.run(), 30)
        return client

    client = asyncio.run(slow())
    status, headers = client.answer
    assert (status, headers[b"connection"]) == (408, b"close")
    assert service.service.in_flight == 0


@pytest.mark.parametrize("kind", [JSON, FORM])
def test_client_that_disconnects_while_sending(start: Any, kind: str) -> None:
    service = start()

    async def broken() -> Connection:
        client = Connection(service.client.app, "/v1/segment", kind)
        client.says(b"--b\r\n", True)
        client.incoming.put_nowait({"type": "http.disconnect"})
        await asyncio.wait_for(client.run(), 30)
        return client

    assert asyncio.run(broken()).answer[0] == 400
    assert service.service.in_flight == 0


def test_disconnected_client_is_removed_from_the_queue(start: Any, image_file: bytes, gate: Any) -> None:
    import base64

    service = start()
    first = Waiting(service).ask(image_file)
    gate.wait_for_model()

    async def leave() -> Connection:
        client = Connection(service.client.app, "/v1/segment", "application/json")
        text = json.dumps({"image": base64.b64encode(image_file).decode(), "classes": "cow"})
        client.says(text.encode(), False)
        running = asyncio.ensure_future(client.run())
        while not service.service.batcher._queue:
            await asyncio.sleep(0.005)
        client.incoming.put_nowait({"type": "http.disconnect"})
        await asyncio.wait_for(running, 30)
        return client

    assert asyncio.run(leave()).answer[0] == 499
    gate.open.set()
    assert first.result(30).status_code == 200
    until(lambda: b"cliper_dropped_total 1.0" in service.service.metrics.text())
    assert gate.groups == [1]


def test_body_of_a_refused_request_is_drained(start: Any) -> None:
    service = start(megabytes=0.001)

    async def talk(chunks: int, end: bool) -> Connection:
        client = Connection(service.client.app, "/v1/segment", "application/json")
        for number in range(chunks):
            client.says(bytes(1000), number + 1 < chunks or not end)
        await asyncio.wait_for(client.run(), 30)
        return client

    ended = asyncio.run(talk(50, True))
    assert ended.answer[0] == 413
    assert b"connection" not in ended.answer[1]
    assert ended.incoming.empty()
    endless = asyncio.run(talk(50, False))
    assert (endless.answer[0], endless.answer[1][b"connection"]) == (413, b"close")
