"""Concurrent requests: the bounded queue, timeouts, and the end."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from server_in_process import Waiting, until

from cliper.errors import ResourceError
from cliper.segmenter import Segmenter


def test_full_queue_is_429_with_retry_after(start: Any, image_file: bytes, gate: Any) -> None:
    service = start(queue=3)
    waiting = Waiting(service)
    asked = [waiting.ask(image_file) for _ in range(3)]
    refused = service.segment(image_file)
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert service.client.post("/setup", json={}).status_code == 429
    assert service.client.get("/healthz").status_code == service.client.get("/readyz").status_code == 200
    gate.open.set()
    assert [one.result(30).status_code for one in asked] == [200] * 3
    assert service.segment(image_file).status_code == 200
    assert service.service.in_flight == 0


def test_request_times_out_with_504(start: Any, image_file: bytes, gate: Any) -> None:
    service = start(seconds=0.3)
    held = service.segment(image_file)
    assert held.status_code == 504
    assert held.headers["Retry-After"]
    gate.open.set()
    until(lambda: service.segment(image_file).status_code == 200)


def test_stopping_server_finishes_admitted_requests(start: Any, image_file: bytes, gate: Any) -> None:
    service = start()
    asked = Waiting(service).ask(image_file)
    service.service.stopping = True
    refused = service.segment(image_file)
    assert (refused.status_code, refused.headers["connection"]) == (503, "close")
    assert service.client.get("/readyz").status_code == 503
    assert service.client.get("/healthz").status_code == 200
    gate.open.set()
    assert asked.result(30).status_code == 200


def test_out_of_memory_is_503(start: Any, image_file: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise ResourceError("segmenting: out of memory")

    monkeypatch.setattr(Segmenter, "__call__", fail)
    answered = start().segment(image_file)
    assert (answered.status_code, answered.json()) == (503, {"error": "segmenting: out of memory"})


def test_defect_is_500_without_details(start: Any, image_file: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    from starlette.testclient import TestClient

    def fail(*_: Any) -> Any:
        raise KeyError("private matters")

    service = start()
    monkeypatch.setattr(Segmenter, "__call__", fail)
    outside = TestClient(service.client.app, raise_server_exceptions=False)
    answered = outside.post("/v1/segment", files={"image": image_file, "classes": (None, "cat")})
    assert answered.status_code == 500
    assert set(answered.json()) == {"error"}
    assert "private" not in answered.text
    assert 'path="/v1/segment",status="500"} 1.0' in service.client.get("/metrics").text


def test_concurrent_requests_get_their_own_results(start: Any, image_file: bytes) -> None:
    """Each gets the answer to its own question, in whatever order they come."""
    service = start(queue=64, batch=4, window=0.002)
    names = ["cat", "dog", "cow", "red bus"]
    expected = {name: service.segment(image_file, name).json() for name in names}
    wrong: list[Any] = []

    def ask(number: int) -> None:
        name = names[number % len(names)]
        answered = service.segment(image_file, name)
        if answered.status_code != 200 or answered.json()["classes"][0]["name"] != name:
            wrong.append(answered.text)
        elif abs(answered.json()["classes"][0]["area"] - expected[name]["classes"][0]["area"]) > 0.01:
            wrong.append(answered.text)  # sums of a batch differ in their last bits, and with them few pixels

    threads = [threading.Thread(target=lambda n=n: [ask(n + i) for i in range(4)]) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert service.service.in_flight == 0
