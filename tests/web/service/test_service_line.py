"""Requests in line: together what is alike, no more than may wait, nothing for those who have gone."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from PIL import Image

from cliper.errors import ResourceError
from cliper.segmenter import Segmenter
from cliper.web.service.line import Done, Job, Line
from cliper.web.service.metrics import Metrics
from cliper.web.service.schema import Wishes
from cliper.web.service.served import Served
from cliper.web.service.wish import make_wish


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that other threads do."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)


class Waiting:
    """Requests that other threads make; closed before the service is, so that they get their answers."""

    def __init__(self, service: Any) -> None:
        self.service = service
        self.pool = ThreadPoolExecutor(16)

    def ask(self, image: bytes, *rest: Any, **values: Any) -> Future[Any]:
        before = self.service.service.inside
        asked = self.pool.submit(self.service.segment, image, *rest, **values)
        until(lambda: self.service.service.inside > before or asked.done())
        return asked


# --- the line --------------------------------------------------------------------------------------------


def jobs_of(served: Served, image: bytes, *classes: str, seconds: float = 60) -> list[Job]:
    wishes = [make_wish(served, image, Wishes(classes=one)) for one in classes]
    return [Job(wish, time.monotonic() + seconds) for wish in wishes]


@pytest.fixture
def served(tiny: Segmenter, start: Any) -> Served:
    found: Served = start(batch=4).service.served
    return found


def test_a_job_whose_client_has_gone_is_let_go_before_its_turn(served: Served, picture_file: bytes) -> None:
    line = Line(batch=4, window=30, metrics=Metrics())
    with line:
        gone, stays = jobs_of(served, picture_file, "dog", "dog")
        line.put(gone)
        line.put(stays)
        assert gone.future.cancel()
        assert line._waiting == [stays]  # and with it goes its picture
    assert stays.future.result(30).result.classes == ("dog",)


def test_those_alike_go_together(served: Served, picture_file: bytes, gate: Any) -> None:
    metrics = Metrics()
    with Line(batch=4, window=0, metrics=metrics) as line:
        first, *others = jobs_of(served, picture_file, *["cat"] * 4, "dog", *["cat"] * 2)
        line.put(first)
        gate.wait_for_model()
        for job in others:
            line.put(job)
        gate.open.set()
        done = [job.future.result(30) for job in (first, *others)]
    # The first was alone; of the others those like the one that had waited longest came first.
    assert gate.groups == [1, 4, 1, 1]
    assert [one.result.classes for one in done] == [("cat",)] * 4 + [("dog",)] + [("cat",)] * 2


def test_together_they_get_what_each_would_get_alone(
    served: Served, make_picture: Callable[..., Image.Image], gate: Any
) -> None:
    import io

    def file(seed: int) -> bytes:
        stream = io.BytesIO()
        make_picture(seed=seed).save(stream, "PNG")
        return stream.getvalue()

    gate.open.set()
    jobs = [jobs_of(served, file(seed), "cat; dog")[0] for seed in range(4)]
    with Line(batch=4, window=30, metrics=Metrics()) as line:  # the fourth ends the wait
        for job in jobs:
            line.put(job)
        together = [job.future.result(30).result for job in jobs]
    assert gate.groups == [4]
    for seed, result in enumerate(together):
        (alone,) = jobs_of(served, file(seed), "cat; dog")
        expected = alone.wish.segmenter([alone.wish.picture], list(alone.wish.classes), list(alone.wish.background))
        assert (result.labels == expected[0].labels).mean() > 0.99  # sums of a batch differ in their last bits


def test_a_window_is_not_waited_out_where_the_model_takes_one(served: Served, picture_file: bytes, gate: Any) -> None:
    gate.open.set()
    with Line(batch=1, window=1000, metrics=Metrics()) as line:
        (job,) = jobs_of(served, picture_file, "cat")
        line.put(job)
        assert isinstance(job.future.result(30), Done)


def test_those_whose_time_is_over_are_not_computed(served: Served, picture_file: bytes, gate: Any) -> None:
    metrics = Metrics()
    with Line(batch=1, window=0, metrics=metrics) as line:
        (first,) = jobs_of(served, picture_file, "cat")
        (late,) = jobs_of(served, picture_file, "dog", seconds=0)
        (gone,) = jobs_of(served, picture_file, "dog")
        for job in (first, late, gone):
            line.put(job)
        gate.wait_for_model()
        assert gone.future.cancel()
        gate.open.set()
        first.future.result(30)
    assert late.future.cancelled()
    assert gate.groups == [1]
    assert b"cliper_dropped_total 2.0" in metrics.text()


def test_a_group_that_fails_is_tried_one_by_one(
    served: Served, picture_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Segmenter.__call__

    def small(self: Segmenter, image: Any, *rest: Any) -> Any:
        if len(image) > 1:
            raise ResourceError("out of memory")
        return real(self, image, *rest)

    monkeypatch.setattr(Segmenter, "__call__", small)
    jobs = jobs_of(served, picture_file, "cat", "cat")
    with Line(batch=2, window=30, metrics=Metrics()) as line:
        for job in jobs:
            line.put(job)
        assert all(isinstance(job.future.result(30), Done) for job in jobs)


@pytest.mark.parametrize("error", [ResourceError("out of memory"), KeyError("a defect"), SystemExit(3)])
def test_an_error_is_that_jobs_and_the_line_goes_on(
    served: Served, picture_file: bytes, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: Any) -> Any:
        raise error

    first, second = jobs_of(served, picture_file, "cat", "cat")
    with Line(batch=1, window=0, metrics=Metrics()) as line:
        with monkeypatch.context() as patch:
            patch.setattr(Segmenter, "__call__", fail)
            line.put(first)
            assert first.future.exception(30) is error
        line.put(second)
        assert isinstance(second.future.result(30), Done)


def test_a_line_ends_with_its_last_job(served: Served, picture_file: bytes, gate: Any) -> None:
    jobs = jobs_of(served, picture_file, "cat", "dog", "cow")
    line = Line(batch=1, window=0, metrics=Metrics())
    with line:
        for job in jobs:
            line.put(job)
        gate.open.set()
    assert all(isinstance(job.future.result(0), Done) for job in jobs)
    with pytest.raises(RuntimeError, match="closed"):
        line.put(jobs[0])


# --- over HTTP -------------------------------------------------------------------------------------------


def test_too_many_are_told_when_to_come_again(start: Any, picture_file: bytes, gate: Any) -> None:
    service = start(queue=3)
    waiting = Waiting(service)
    asked = [waiting.ask(picture_file) for _ in range(3)]
    refused = service.segment(picture_file)
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert service.client.post("/setup", json={}).status_code == 429
    assert service.client.get("/healthz").status_code == service.client.get("/readyz").status_code == 200
    gate.open.set()
    assert [one.result(30).status_code for one in asked] == [200] * 3
    assert service.segment(picture_file).status_code == 200
    assert service.service.inside == 0


def test_the_time_of_a_request(start: Any, picture_file: bytes, gate: Any) -> None:
    service = start(seconds=0.3)
    held = service.segment(picture_file)
    assert held.status_code == 504
    assert held.headers["Retry-After"]
    gate.open.set()
    until(lambda: service.segment(picture_file).status_code == 200)


def test_stopping_finishes_what_was_let_in(start: Any, picture_file: bytes, gate: Any) -> None:
    service = start()
    asked = Waiting(service).ask(picture_file)
    service.service.stopping = True
    refused = service.segment(picture_file)
    assert (refused.status_code, refused.headers["connection"]) == (503, "close")
    assert service.client.get("/readyz").status_code == 503
    assert service.client.get("/healthz").status_code == 200
    gate.open.set()
    assert asked.result(30).status_code == 200


def test_out_of_memory_is_no_defect(start: Any, picture_file: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise ResourceError("segmenting: out of memory")

    monkeypatch.setattr(Segmenter, "__call__", fail)
    answered = start().segment(picture_file)
    assert (answered.status_code, answered.json()) == (503, {"error": "segmenting: out of memory"})


def test_a_defect_is_one_line_too(start: Any, picture_file: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    from starlette.testclient import TestClient

    def fail(*_: Any) -> Any:
        raise KeyError("private matters")

    service = start()
    monkeypatch.setattr(Segmenter, "__call__", fail)
    outside = TestClient(service.client.app, raise_server_exceptions=False)
    answered = outside.post("/v1/segment", files={"image": picture_file, "classes": (None, "cat")})
    assert answered.status_code == 500
    assert set(answered.json()) == {"error"}
    assert "private" not in answered.text
    assert 'path="/v1/segment",status="500"} 1.0' in service.client.get("/metrics").text


class Connection:
    """A client at the lowest level: it sends what and when the test says."""

    def __init__(self, app: Any, path: str, kind: str) -> None:
        self.sent: list[dict[str, Any]] = []
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        headers = [(b"content-type", kind.encode())]
        self._app = app
        self._scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
        self._scope |= {"http_version": "1.1", "scheme": "http", "root_path": "", "raw_path": path.encode()}

    async def run(self) -> None:
        async def send(message: Any) -> None:
            self.sent.append(message)

        await self._app(self._scope, self.incoming.get, send)

    def says(self, body: bytes, more: bool) -> None:
        self.incoming.put_nowait({"type": "http.request", "body": body, "more_body": more})

    @property
    def answer(self) -> tuple[int, dict[bytes, bytes]]:
        return self.sent[0]["status"], dict(self.sent[0]["headers"])


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


def test_many_at_once_are_all_answered_right(start: Any, picture_file: bytes) -> None:
    """Each gets the answer to its own question, in whatever order they come."""
    service = start(queue=64, batch=4, window=0.002)
    names = ["cat", "dog", "cow", "red bus"]
    expected = {name: service.segment(picture_file, name).json() for name in names}
    wrong: list[Any] = []

    def ask(number: int) -> None:
        name = names[number % len(names)]
        answered = service.segment(picture_file, name)
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
    assert service.service.inside == 0
