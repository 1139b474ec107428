"""What is passed on to Gradio: uploads to its own place for them, and events of the page as they were understood."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

from cliper.web import drain
from cliper.web.page.build import build
from cliper.web.page.closed import Closed
from cliper.web.page.limits import Limits
from cliper.web.page.lines import Lines

JOIN = "/gradio_api/queue/join"


@pytest.fixture
def lines(make_actions: Any) -> Lines:
    return Lines(build(make_actions()), Limits())


@pytest.fixture
def segment(lines: Lines) -> dict[str, Any]:
    """The event that segments, as the browser says it."""
    number = next(n for n in range(20) if lines.takes(n) == 12)
    return {"data": [None] * 12, "event_data": None, "fn_index": number, "session_hash": "one", "trigger_id": 7}


@pytest.fixture
def asked(lines: Lines, uploads: Path) -> Any:
    """Ask; the status, and what came through."""

    def ask(body: Any, path: str = JOIN, method: str = "POST", chunk: int = 1000, root: str = "") -> tuple[int, Any]:
        got, statuses = bytearray(), []
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        pieces = [sent[start : start + chunk] for start in range(0, len(sent), chunk)] or [b""]
        parts = [
            {"type": "http.request", "body": piece, "more_body": number < len(pieces) - 1}
            for number, piece in enumerate(pieces)
        ]

        async def receive() -> Any:
            return parts.pop(0)

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

        scope = {"type": "http", "method": method, "path": path, "headers": [], "root_path": root}
        asyncio.run(Closed(page, lines, uploads)(scope, receive, send))
        assert not parts or method == "GET", "what was not read would look to the client like a fault"
        return statuses[0], bytes(got)

    return ask


@pytest.mark.parametrize("position", range(12))
@pytest.mark.parametrize("place", ["http://example.com/x", "file:///etc/passwd", "/etc/passwd", "a.png", "", 3, None])
def test_no_input_may_be_a_file_from_elsewhere(asked: Any, segment: Any, position: int, place: Any) -> None:
    file = {"path": place, "meta": {"_type": "gradio.FileData"}}
    for value in (file, [{"deep": [file]}]):
        segment["data"][position] = value
        assert asked(segment) == (403, b"")
        assert asked(json.dumps(segment).encode().replace(b"path", b"p\\u0061th")) == (403, b"")
    segment["data"][position] = None
    assert asked({**segment, "event_data": {"a": file}}) == (403, b"")


def test_a_file_beside_the_uploads_is_none_of_them(asked: Any, segment: Any, uploads: Path) -> None:
    for place in (uploads / ".." / "a.png", f"{uploads}else/a.png", f"{uploads}/a/../../b"):
        segment["data"][0] = {"path": str(place)}
        assert asked(segment) == (403, b"")


def test_what_the_page_says_comes_through(asked: Any, segment: Any, uploads: Path) -> None:
    upload = {"path": str(uploads / "a" / "a.png"), "url": "http://127.0.0.1:7860/gradio_api/file=/tmp/a.png"}
    segment["data"][:2] = [upload, ["dog", "http://a.class", "\ud800 ä 🐎"]]
    for root in ("", "/page"):
        status, body = asked(segment, chunk=7, path=root + JOIN, root=root)
        assert (status, json.loads(body)) == (200, segment)


def test_what_the_page_does_not_say_does_not_come_through(asked: Any, segment: Any) -> None:
    status, body = asked({**segment, "batched": True, "request": {}, "event_id": "x", "simple_format": True})
    assert (status, json.loads(body)) == (200, segment)
    twice = json.dumps(segment)[:-1] + ', "data": [{"path": "http://a"}], "data": ' + json.dumps(segment["data"]) + "}"
    status, body = asked(twice.encode())
    assert (status, json.loads(body)) == (200, segment)
    assert b"http" not in body
    nested: Any = None
    for _ in range(400):
        nested = [nested]
    assert asked({**segment, "data": [nested] * 12})[0] == 400


def test_an_event_is_not_large_but_an_upload_may_be(asked: Any, segment: Any, lines: Lines) -> None:
    large = {**segment, "data": [*segment["data"][:11], "x" * 2**20]}
    assert asked(large) == (413, b"")
    words = {**segment, "data": [*segment["data"][:11], "x" * 2**19]}
    assert asked(words)[0] == 200
    quick = next(n for n in range(20) if lines.takes(n) == 3)
    assert asked({**segment, "fn_index": quick, "data": [None, 0.5, 0.5]})[0] == 200
    assert asked({**segment, "fn_index": quick, "data": [None, 0.5, "x" * 2**17]}) == (413, b"")
    body = json.dumps(large).encode()
    assert asked(body, "/gradio_api/upload") == (200, body)


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/run/segment",
        "/gradio_api/run/upload",
        "/gradio_api/call/segment",
        "/gradio_api/call/upload",
        "/gradio_api/call/v2/upload",
        "/gradio_api/call/gradio_api/upload",
        "/else/gradio_api/upload",
        "/gradio_api/upload/",
        "/GRADIO_API/upload",
        "/gradio_api/queue/join/",
        "/gradio_api/component_server",
        "/gradio_api/process_recording",
        "/gradio_api/vibe-edit",
        "/gradio_api/stream/x",
        "/queue/join",
        "/login",
        "/",
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_else_is_passed_on(asked: Any, segment: Any, path: str, method: str) -> None:
    assert asked(segment, path, method) == (404, b"")


def test_only_posting_is_an_upload(asked: Any) -> None:
    assert asked(b"x", "/gradio_api/upload", "PUT") == (404, b"")
    assert asked(b"x", "/gradio_api/cancel")[0] == 200
    assert asked(b"x" * (2**20 + 1), "/gradio_api/cancel") == (413, b"")


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/file=http://a", "/gradio_api/file/https://a", "/gradio_api/file= HTTP://a", "/gradio_api/proxy=x"],
)
def test_no_address_is_fetched_for_who_looks(asked: Any, path: str) -> None:
    assert asked(b"", path, "GET") == (403, b"")
    assert asked(b"", "/gradio_api/file=/tmp/a/proxy=1.png", "GET")[0] == 200


def test_kinds_wait_apart_and_a_place_is_held_while_it_is_taken(make_actions: Any, segment: Any) -> None:
    lines = Lines(build(make_actions()), Limits(waiting=2, waiting_quick=1))
    quick = next(n for n in range(20) if lines.takes(n) == 3)
    number = segment["fn_index"]
    with lines.place(number) as first, lines.place(number) as second, lines.place(number) as third:
        assert (first, second, third) == (True, True, False)
        with lines.place(quick) as other, lines.place(quick) as one_more:
            assert (other, one_more) == (True, False)
    with lines.place(number) as first, lines.place(number) as second:
        assert (first, second) == (True, True), "those who were refused, and those who went, hold nothing"


def test_a_body_that_does_not_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "PATIENCE", 0.05)
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(0.001)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    async def answer() -> None:
        _, answering = drain.draining({"headers": []}, receive, send)
        await answering({"type": "http.response.start", "status": 413, "headers": []})

    asyncio.run(asyncio.wait_for(answer(), 60))
    assert sent[0]["headers"] == [(b"connection", b"close")]
