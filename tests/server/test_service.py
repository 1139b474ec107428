"""Concurrent requests: the bounded queue, deadlines, errors of the model, and clients that disconnect."""

from __future__ import annotations

import asyncio
import base64
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from server_in_process import png, refused
from server_process import wait_for

from cliper.decode_pool import DecodePool
from cliper.errors import ResourceError
from cliper.segmenter import Segmenter

JSON, FORM = "application/json", "multipart/form-data; boundary=b"
FIRST = {JSON: b'{"image": "', FORM: b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'}


def test_full_queue_is_429_with_retry_after(start: Any, image_file: bytes, gate: Any) -> None:
    service = start(queue=3)
    waiting = [service.segment_later(image_file) for _ in range(3)]
    full = service.segment(image_file)
    refused(full, 429, "at most 3")
    assert 1 <= int(full.headers["Retry-After"]) <= 60
    refused(service.client.post("/setup", json={}), 429)
    assert service.client.get("/healthz").status_code == 200
    gate.open.set()
    assert [one.result(30).status_code for one in waiting] == [200] * 3
    assert service.segment(image_file).status_code == 200
    assert service.service.in_flight == 0


def test_concurrent_requests_get_their_own_results(start: Any, make_image: Any) -> None:
    service, files = start(batch=4, window=0.05), [png(make_image(seed=seed)) for seed in range(6)]
    waiting = [service.segment_later(file, output="png") for file in files]
    expected = [service.segment(file, output="png").json()["png"] for file in files]
    assert [one.result(60).json()["png"] for one in waiting] == expected
    assert len(set(expected)) == 6


def test_request_times_out_with_504(start: Any, image_file: bytes, gate: Any) -> None:
    service = start(seconds=0.3)
    late = service.segment(image_file)
    refused(late, 504, "0.3 s")
    assert late.headers["Retry-After"]
    gate.open.set()
    wait_for(lambda: service.segment(image_file).status_code == 200)


def test_out_of_memory_is_503(start: Any, image_file: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise ResourceError("segmenting: out of memory")

    monkeypatch.setattr(Segmenter, "__call__", fail)
    refused(start().segment(image_file), 503, "segmenting: out of memory")


def test_defect_is_500_without_details(start: Any, image_file: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    from starlette.testclient import TestClient

    def fail(*_: Any) -> Any:
        raise KeyError("private matters")

    service = start()
    with monkeypatch.context() as patch:
        patch.setattr(Segmenter, "__call__", fail)
        client = TestClient(service.client.app, raise_server_exceptions=False)
        response = client.post("/v1/segment", files={"image": image_file, "classes": (None, "cat")})
    assert response.status_code == 500
    assert set(response.json()) == {"error"}
    assert "private" not in response.text
    assert 'path="/v1/segment",status="500"} 1.0' in service.client.get("/metrics").text
    assert service.segment(image_file).status_code == 200


class Misbehaving(DecodePool):
    """A body of text says what its decoder does; other bodies are decoded."""

    def decode(self, source: Any, name: str = "", **options: Any) -> Any:
        return super().decode(source, source.decode() if source.isascii() else name, **options)


def test_misbehaving_decoder_is_one_failed_request(start: Any, image_file: bytes) -> None:
    handler = "hostile_decoders:decoder"
    with Misbehaving(1, memory_limit=2**30, cpu_seconds=1, wall_seconds=2, handler=handler) as decoders:
        server = start(decoders=decoders)
        refused(server.segment(b"hang"), 422, "longer than 2 s")
        refused(server.segment(b"crash"), 422, "crashes its decoder")
        refused(server.segment(b"allocate"), 422, "memory")
        response = server.segment(image_file)
        assert response.status_code == 200, response.text
        assert response.json()["width"] == 96


class Connection:
    """A client at the level of ASGI: it sends what and when the test says."""

    def __init__(self, app: Any, kind: str, *headers: tuple[bytes, bytes]) -> None:
        self.sent: list[dict[str, Any]] = []
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._app = app
        self._scope = {"type": "http", "method": "POST", "path": "/v1/segment", "query_string": b"", "root_path": ""}
        self._scope |= {
            "http_version": "1.1",
            "scheme": "http",
            "headers": [(b"content-type", kind.encode()), *headers],
        }

    async def run(self, receive: Callable[..., Any] | None = None) -> None:
        """Until it has its response, which follows messages of ``incoming`` or of ``receive``."""

        async def send(message: Any) -> None:
            self.sent.append(message)

        await asyncio.wait_for(self._app(self._scope, receive or self.incoming.get, send), 60)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])


def test_content_length_above_the_limit_is_refused_before_the_body_is_read(start: Any) -> None:
    client = Connection(start(megabytes=0.1).client.app, JSON, (b"content-length", b"100001"))
    asyncio.run(client.run(lambda: pytest.fail("the body was read")))
    assert client.status == 413


@pytest.mark.parametrize("kind", [JSON, FORM])
def test_too_large_body_is_not_kept_in_memory(start: Any, kind: str) -> None:
    service, read = start(megabytes=0.1), 0

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 10_000
        body = FIRST[kind].ljust(10_000, b"A") if read == 10_000 else bytes(10_000)
        return {"type": "http.request", "body": body, "more_body": True}

    client = Connection(service.client.app, kind)
    tracemalloc.start()
    try:
        asyncio.run(client.run(receive))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert client.status == 413
    assert read == 110_000  # by no more than the piece with which it became too large
    assert most < 2_000_000  # 0.1 MB in two or three copies, and the response


@pytest.mark.parametrize("kind", [JSON, FORM])
@pytest.mark.parametrize(("disconnects", "status"), [(False, 408), (True, 400)])
def test_incomplete_body(start: Any, kind: str, disconnects: bool, status: int) -> None:
    service = start(seconds=0.2)

    async def talk() -> Connection:
        client = Connection(service.client.app, kind)
        client.incoming.put_nowait({"type": "http.request", "body": b"--b\r\n", "more_body": True})
        if disconnects:
            client.incoming.put_nowait({"type": "http.disconnect"})
        await client.run()
        return client

    assert asyncio.run(talk()).status == status
    assert service.service.in_flight == 0


def test_request_of_a_disconnected_client_is_not_computed(start: Any, image_file: bytes, gate: Any) -> None:
    service = start()
    first = service.segment_later(image_file)
    gate.wait_for_model()

    async def leave() -> Connection:
        client = Connection(service.client.app, JSON)
        text = json.dumps({"image": base64.b64encode(image_file).decode(), "classes": "cow"})
        client.incoming.put_nowait({"type": "http.request", "body": text.encode()})
        running = asyncio.ensure_future(client.run())
        while service.service.in_flight < 2:
            await asyncio.sleep(0.005)
        client.incoming.put_nowait({"type": "http.disconnect"})
        await running
        return client

    assert asyncio.run(leave()).status == 499
    gate.open.set()
    assert first.result(30).status_code == 200
    wait_for(lambda: service.service.in_flight == 0)
    assert gate.groups == [1]
