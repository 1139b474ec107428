"""Bodies that come slowly, not whole, or longer than they may be, and clients that do not stay."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from service_runs import Connection, Waiting, until


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=b"])
def test_a_body_that_does_not_come(start: Any, kind: str) -> None:
    service = start(seconds=0.2)

    async def slow() -> Connection:
        client = Connection(service.client.app, "/v1/segment", kind)
        client.says(b"--b\r\n", True)
        await asyncio.wait_for(client.run(), 30)
        return client

    client = asyncio.run(slow())
    status, headers = client.answer
    assert (status, headers[b"connection"]) == (408, b"close")
    assert service.service.inside == 0


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=b"])
def test_a_client_that_breaks_off(start: Any, kind: str) -> None:
    service = start()

    async def broken() -> Connection:
        client = Connection(service.client.app, "/v1/segment", kind)
        client.says(b"--b\r\n", True)
        client.incoming.put_nowait({"type": "http.disconnect"})
        await asyncio.wait_for(client.run(), 30)
        return client

    assert asyncio.run(broken()).answer[0] == 400
    assert service.service.inside == 0


def test_a_client_that_goes_while_it_waits(start: Any, picture_file: bytes, gate: Any) -> None:
    import base64

    service = start()
    first = Waiting(service).ask(picture_file)
    gate.wait_for_model()

    async def leave() -> Connection:
        client = Connection(service.client.app, "/v1/segment", "application/json")
        text = json.dumps({"image": base64.b64encode(picture_file).decode(), "classes": "cow"})
        client.says(text.encode(), False)
        running = asyncio.ensure_future(client.run())
        while not service.service._line._waiting:
            await asyncio.sleep(0.005)
        client.incoming.put_nowait({"type": "http.disconnect"})
        await asyncio.wait_for(running, 30)
        return client

    assert asyncio.run(leave()).answer[0] == 499
    gate.open.set()
    assert first.result(30).status_code == 200
    until(lambda: b"cliper_dropped_total 1.0" in service.service.metrics.text())
    assert gate.groups == [1]


def test_what_a_refused_client_still_sends_is_taken(start: Any) -> None:
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
