"""What is passed on to Gradio: uploads to its own place for them, and events of the page as they were understood."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

from cliper.web import drain
from cliper.web.page import closed
from cliper.web.page.actions import Actions
from cliper.web.page.build import build
from cliper.web.page.closed import Closed
from cliper.web.page.door import Door
from cliper.web.page.kept import Kept
from cliper.web.page.limits import Limits
from cliper.web.page.lines import Lines
from cliper.web.page.models import Models
from cliper.web.page.sessions import Sessions
from cliper.web.page.uploads import Uploads

JOIN = "/gradio_api/queue/join"


@pytest.fixture(scope="module")
def page(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The page, of which only the events matter here."""
    folder, limits = tmp_path_factory.mktemp("files"), Limits()
    return build(Actions(Models(tiny, lambda name: tiny), Kept(folder, limits), limits, folder))


def event_of(page: Any, function: str) -> dict[str, Any]:
    """An event without values, as the browser says it."""
    number, event = next((number, event) for number, event in page.fns.items() if event.api_name == function)
    data = [None] * len(event.inputs)
    return {"data": data, "event_data": None, "fn_index": number, "session_hash": "one", "trigger_id": 7}


@pytest.fixture
def segment(page: Any) -> dict[str, Any]:
    return event_of(page, "segment")


@pytest.fixture
def asked(page: Any, uploads: Path) -> Any:
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

        async def gradio(scope: Any, receive: Any, send: Any) -> None:
            more = True
            while more:
                message = await receive()
                got.extend(message["body"])
                more = message["more_body"]
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        scope = {"type": "http", "method": method, "path": path, "root_path": root, "query_string": b""}
        scope["headers"] = [(b"host", b"localhost"), (b"content-type", b"multipart/form-data; boundary=b")]
        limits = Limits()
        inner = Closed(gradio, Lines(page, limits), Sessions(page, limits), Uploads(uploads, limits))
        asyncio.run(Door(inner, local=True)(scope, receive, send))
        assert not parts or method in ("GET", "HEAD"), "what was not read would look to the client like a fault"
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
    picture = uploads / "a.png"
    picture.touch()
    upload = {"path": str(picture), "url": "http://127.0.0.1:7860/gradio_api/file=/tmp/a.png", "size": "x"}
    words = ["dog", "http://a.class", "ä 🐎"]
    segment["data"][:2] = [upload, words]
    for root in ("", "/page"):
        status, body = asked(segment, chunk=7, path=root + JOIN, root=root)
        segment["data"][0] = {"path": str(picture), "meta": {"_type": "gradio.FileData"}}
        assert (status, json.loads(body)) == (200, segment)


@pytest.mark.parametrize("value", ["a.png", ["a.png"], 3, True, {}, {"url": "a"}, {"path": 3}, {"path": ["a"]}])
def test_a_picture_is_a_file_or_nothing(asked: Any, segment: Any, uploads: Path, value: Any) -> None:
    segment["data"][0] = value
    assert asked(segment) == (403, b"")
    (uploads / "folder").mkdir()
    for place in (uploads, uploads / "folder"):
        segment["data"][0] = {"path": str(place), "meta": {"_type": "gradio.FileData"}}
        assert asked(segment) == (403, b"")


@pytest.mark.parametrize("name", ["gone.png", "x" * 5000, "a\0.png"])
def test_a_picture_that_is_gone_is_none(asked: Any, segment: Any, uploads: Path, name: str) -> None:
    segment["data"][0] = {"path": f"{uploads}/{name}", "meta": "x"}
    status, body = asked(segment)
    assert (status, json.loads(body)["data"][0]) == (200, None)


@pytest.mark.parametrize(
    "changed",
    [
        {"session_hash": "\ud800"},
        {"session_hash": "a b"},
        {"session_hash": "ä"},
        {"session_hash": "٣"},
        {"session_hash": "one\n"},
        {"trigger_id": "\ud800"},
        {"trigger_id": "x"},
        {"trigger_id": 1.5},
        {"trigger_id": True},
        {"event_data": "x"},
        {"event_data": []},
        {"event_data": 3},
        {"event_data": {"\ud800": 1}},
        {"event_data": {"a": ["\udfff"]}},
        {"\ud800": 1},
    ],
)
def test_an_event_of_the_wrong_kind(asked: Any, segment: Any, changed: Any) -> None:
    assert asked({**segment, **changed}) == (400, b"")


@pytest.mark.parametrize("position", range(12))
def test_no_text_of_an_event_is_half_a_letter(asked: Any, segment: Any, position: int) -> None:
    segment["data"][position] = {"path": "\ud800"} if position == 0 else ["a", "\ud800"]
    assert asked(segment) == (400, b"")


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
    assert asked({**segment, "data": [None, *[nested] * 11]})[0] == 400


def test_an_event_is_not_large_but_an_upload_may_be(asked: Any, segment: Any, page: Any) -> None:
    large = {**segment, "data": [*segment["data"][:11], "x" * 2**20]}
    assert asked(large) == (413, b"")
    words = {**segment, "data": [*segment["data"][:11], "x" * 2**19]}
    assert asked(words)[0] == 200
    quick = event_of(page, "suit")
    assert asked({**quick, "data": ["mini"]})[0] == 200
    assert asked({**quick, "data": ["x" * 2**17]}) == (413, b"")
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
        "/gradio_api/cancel",
        "/gradio_api/reset",
        "/queue/join",
        "/login",
        "/",
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_else_is_passed_on(asked: Any, segment: Any, path: str, method: str) -> None:
    assert asked(segment, path, method) == (404, b"")


def test_only_posting_is_an_upload(asked: Any) -> None:
    assert asked(b"x", "/gradio_api/upload", "PUT") == (404, b"")


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/file=http://a", "/gradio_api/file/https://a", "/gradio_api/file= HTTP://a", "/gradio_api/proxy=x"],
)
def test_no_address_is_fetched_for_who_looks(asked: Any, path: str) -> None:
    assert asked(b"", path, "GET") == (403, b"")
    assert asked(b"", "/gradio_api/file=/tmp/a/proxy=1.png", "GET")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/call/x/y",
        "/gradio_api/queue/data",
        "/gradio_api/queue/status",
        "/gradio_api/custom_component/\x1b[31m/client/a/b",
        "/gradio_api/deep_link",
        "/gradio_api/dev/reload",
        "/gradio_api/info",
        "/gradio_api/runs",
        "/gradio_api/heartbeat/a/b",
        "/gradio_api/heartbeat/a\nb",
        "/gradio_api/file=a\0b",
        "/gradio_api/file=" + "x" * 1000,
        "/assets/\x1b",
        "/monitoring",
        "/logout",
        "/openapi.json",
        "/docs",
        "//",
        "",
    ],
)
def test_nothing_else_is_looked_at(asked: Any, path: str) -> None:
    for method in ("GET", "HEAD"):
        assert asked(b"", path, method) == (404, b"")


@pytest.mark.parametrize("path", ["/", "/config", "/theme.css", "/assets/a/b.js", "/gradio_api/heartbeat/a1"])
def test_what_the_page_looks_at(asked: Any, path: str) -> None:
    assert asked(b"", path, "GET")[0] == 200


def test_an_event_does_not_take_forever_to_come(
    page: Any, uploads: Path, monkeypatch: pytest.MonkeyPatch, segment: Any
) -> None:
    monkeypatch.setattr(closed, "PATIENCE", 0.05)
    monkeypatch.setattr(drain, "PATIENCE", 0.05)
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    async def answer() -> None:
        limits = Limits()
        inner = Closed(None, Lines(page, limits), Sessions(page, limits), Uploads(uploads, limits))  # type: ignore
        scope = {"type": "http", "method": "POST", "path": JOIN, "headers": [(b"host", b"[::1]:7860")]}
        await Door(inner, local=True)(scope, receive, send)

    asyncio.run(asyncio.wait_for(answer(), 60))
    assert sent[0]["status"] == 408


def test_kinds_wait_apart_and_a_place_is_held_while_it_is_taken(page: Any, segment: Any) -> None:
    lines = Lines(page, Limits(waiting=2, waiting_quick=1))
    quick = event_of(page, "suit")["fn_index"]
    number = segment["fn_index"]
    with lines.place(number) as first, lines.place(number) as second, lines.place(number) as third:
        assert (first, second, third) == (True, True, False)
        with lines.place(quick) as other, lines.place(quick) as one_more:
            assert (other, one_more) == (True, False)
    with lines.place(number) as first, lines.place(number) as second:
        assert (first, second) == (True, True), "those who were refused, and those who went, hold nothing"
