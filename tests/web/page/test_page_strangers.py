"""Requests that no page of ours sends, over loopback: each has its answer, and the operator's terminal stays quiet."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from page_over_http import ask, call, join, messages, number_of, post

from cliper.errors import InputError
from cliper.web.page.limits import Limits
from cliper.web.page.run import free_port, serving

pytestmark = [pytest.mark.allow_hosts(["127.0.0.1"]), pytest.mark.full]

SECONDS = 60


@pytest.fixture(scope="module")
def address(tiny: Any) -> Iterator[str]:
    with serving(tiny, lambda name: tiny, port=0, limits=Limits(upload_megabytes=1)) as (place, _):
        yield place


@pytest.fixture
def folder(address: str) -> Path:
    return Path(os.environ["GRADIO_TEMP_DIR"])


@pytest.fixture(autouse=True)
def _quiet(address: str, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Nothing is said on the operator's terminal, and the page still works."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in ("", "uvicorn.error")]  # which writes to where it once began
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
        assert call(address, "suit", ["mini"], "last")[-1]["success"]
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    out, err = capfd.readouterr()
    assert (out, err, said) == ("", "", [])


def raw(address: str, request: bytes, *, cut: bool = False) -> bytes:
    """The answer to a request as it is written here; none is waited for where it is cut off."""
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=SECONDS) as client:
        client.sendall(request)
        if cut:
            return b""
        answer = b""
        while piece := client.recv(2**16):
            answer += piece
        return answer


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def form(*parts: tuple[str, bytes]) -> bytes:
    """A form's body, of what Content-Disposition says besides ``form-data``, and bytes."""
    body = b"".join(
        f"--bound\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n" for head, data in parts
    )
    return body + b"--bound--\r\n"


FILE = 'name="files"; filename="a.png"'
HEAD = b"Host: localhost\r\nConnection: close\r\nContent-Type: multipart/form-data; boundary=bound\r\n"


def upload(address: str, body: bytes, query: str = "") -> tuple[int, str]:
    kind = {"Content-Type": "multipart/form-data; boundary=bound"}
    return ask(address, f"gradio_api/upload{query}", data=body, headers=kind, method="POST")


def until(done: Callable[[], Any]) -> None:
    end = time.monotonic() + SECONDS
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(
    "headers",
    [b"Host: evil.example\r\n", b"Host: evil.example:80\r\n", b"Host: 192.0.2.1\r\n", b"Host: localhost.evil\r\n"],
)
def test_on_this_machine_it_is_known_by_names_of_this_machine(address: str, headers: bytes) -> None:
    for line in (b"GET / HTTP/1.1", b"POST /gradio_api/queue/join HTTP/1.1", b"OPTIONS / HTTP/1.1"):
        assert status(raw(address, line + b"\r\nConnection: close\r\n" + headers + b"\r\n")) == 403


@pytest.mark.parametrize("host", [b"localhost", b"127.0.0.1:1", b"127.1.2.3", b"[::1]:7860", b"LOCALHOST:80"])
def test_names_of_this_machine(address: str, host: bytes) -> None:
    request = b"GET /config HTTP/1.1\r\nConnection: close\r\nHost: " + host + b"\r\n\r\n"
    assert status(raw(address, request)) == 200


@pytest.mark.parametrize(
    "headers",
    [
        b"",
        b"Origin: http://localhost\r\n",
        b"Host: [\r\n",
        b"Host: 999.1.1.1\r\n",
        b"Host: a b\r\n",
        b"Host: a/b\r\n",
        b"Host: \xff\xfe\r\n",
        b"Host: localhost\r\nX-Forwarded-Host: [\r\n",
    ],
)
def test_a_host_that_is_none(address: str, headers: bytes) -> None:
    assert status(raw(address, b"GET / HTTP/1.0\r\n" + headers + b"\r\n")) in (400, 403)


@pytest.mark.parametrize(
    ("origin", "right"),
    [
        (b"http://localhost:7860", True),
        (b"https://localhost:7860", True),
        (b"https://front.example", True),
        (b"http://localhost:1", False),
        (b"http://evil.example", False),
        (b"null", False),
        (b"", False),
    ],
)
def test_only_pages_of_its_own_upload(address: str, folder: Path, origin: bytes, right: bool) -> None:
    body = form((FILE, b"of " + origin))
    head = b"POST /gradio_api/upload HTTP/1.1\r\nConnection: close\r\nHost: localhost:7860\r\n"
    head += b"X-Forwarded-Host: front.example\r\nContent-Type: multipart/form-data; boundary=bound\r\n"
    head += b"Origin: " + origin + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert status(raw(address, head + body)) == (200 if right else 403)
    assert (b"of " + origin in [path.read_bytes() for path in folder.rglob("*.png")]) is right


def test_an_upload_that_is_no_file(address: str, folder: Path) -> None:
    for query in ("", "?upload_id=a"):
        for parts in (
            [('name="files"', b"x")],
            [('name="files"; filename=""', b"x")],
            [('filename="a.png"', b"x")],
            [(FILE, b"x"), (FILE, b"y")],
            [(FILE, b"x"), ('name="a"', b"y")],
            [(f'name="files"; filename="{"x" * 3000}"', b"x")],
        ):
            assert upload(address, form(*parts), query)[0] in (200, 400), parts
        for body in (b"", b"--bound", b"--bound\r\n\r\n", b"no form", form((FILE, b"x")) + b"y" * 100):
            assert upload(address, body, query)[0] in (200, 400), body
    for kind in (
        "",
        "x",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\xff",
    ):
        path, options = "gradio_api/upload", {"Content-Type": kind}
        assert ask(address, path, data=b"--\r\n", headers=options, method="POST")[0] in (200, 400), kind
    assert upload(address, form((FILE, b"x"), (FILE, b"y")))[0] == 400
    assert not list(folder.glob("tmp*")), "no part of what was refused stays"


def test_an_upload_is_as_large_as_one_file(address: str, folder: Path) -> None:
    assert upload(address, form((FILE, b"x" * 2**20)))[0] == 200
    assert upload(address, form((FILE, b"x" * (2**20 + 1))))[0] == 413
    assert upload(address, form(('name="a"', b"x" * 2**21)))[0] == 413
    assert not list(folder.glob("tmp*"))


def test_an_upload_that_is_cut_off_leaves_nothing(address: str, folder: Path) -> None:
    begun = form((FILE, b"x" * 2**19))[:-100]
    request = b"POST /gradio_api/upload HTTP/1.1\r\n" + HEAD + b"Content-Length: 999999\r\n\r\n" + begun
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=SECONDS) as client:
        client.sendall(request)
        until(lambda: list(folder.glob("tmp*")))
    until(lambda: not list(folder.glob("tmp*")))


def test_events_of_the_wrong_kind(address: str) -> None:
    event = {"data": [["mini"]], "fn_index": number_of(address, "suit"), "session_hash": "one"}
    for changed in (
        {"session_hash": "\ud800"},
        {"data": ["\ud800"]},
        {"trigger_id": "\ud800"},
        {"event_data": "x"},
        {"event_data": [1]},
        {"event_data": 1},
    ):
        assert post(address, "gradio_api/queue/join", {**event, **changed})[0] == 400, changed
    for changed in ({"trigger_id": 10**30}, {"trigger_id": -1}, {"event_data": {"a": float("nan")}}):
        assert post(address, "gradio_api/queue/join", {**event, **changed})[0] == 200, changed
    assert len([told for told in messages(address, "one") if told["msg"] == "process_completed"]) == 3


def test_pictures_of_the_wrong_kind(address: str, folder: Path) -> None:
    def segment(picture: Any) -> tuple[int, str]:
        return join(address, "segment", [picture, *[None] * 11], "two")

    for picture in ("a", ["a"], 3, {"path": str(folder)}, {"path": f"{folder}/\ud800"}, {"meta": "x"}):
        assert segment(picture)[0] in (400, 403), picture
    (path,) = json.loads(upload(address, form((FILE, b"no picture")))[1])
    for more in ({}, {"meta": "x"}, {"meta": {"_type": "gradio.FileData"}, "size": "x", "url": 3, "mime_type": []}):
        assert segment({"path": path, **more})[0] == 200
    for gone in (f"{folder}/gone.png", f"{folder}/{'x' * 5000}", f"{folder}/a\0b"):
        assert segment({"path": gone})[0] == 200
    done = [told for told in messages(address, "two") if told["msg"] == "process_completed"]
    assert [told["success"] for told in done] == [True] * 6


def test_looks_at_what_is_not_there(address: str) -> None:
    for path in (
        "gradio_api/queue/data",
        "gradio_api/queue/data?session_hash=unknown",
        "gradio_api/queue/data?session_hash=%ff",
        "gradio_api/call/x/y",
        "gradio_api/custom_component/%1b%5b31m/client/a/b",
        "gradio_api/dev/reload",
        "gradio_api/deep_link?session_hash=last",
        "gradio_api/info",
        "assets/%00",
        "assets/" + "x" * 5000,
        "static/%1b",
        "static/nothing",
        "assets/nothing",
        "?",
    ):
        assert ask(address, path)[0] == (200 if path == "?" else 404), path
    for path in (
        "assets/..%2f..%2f..",
        "static/img",
        "assets/.",
        "gradio_api/file=%ff",
        "gradio_api/file=" + "a/" * 400,
    ):
        assert ask(address, path)[0] in (403, 404), path
    for path in (
        "gradio_api/upload_progress",
        "gradio_api/upload_progress?upload_id=%00",
        "?deep_link=%00",
        "config?page=x",
    ):
        assert ask(address, path)[0] in (200, 404, 422), path


@pytest.mark.parametrize(
    "part", ["bytes=-1", "bytes=1-2-3", "bytes=9-1", "bytes=²-³", "bytes=999999-", "x", "bytes=0-0,2-3"]
)
def test_part_of_a_file_is_the_whole_file(address: str, part: str) -> None:
    (path,) = json.loads(upload(address, form((FILE, b"0123456789")))[1])
    head = f"GET /gradio_api/file={path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nRange: {part}\r\n\r\n"
    answer = raw(address, head.encode("latin-1"))
    assert (status(answer), answer[-10:]) == (200, b"0123456789")


def test_answers_that_are_fetched_twice_and_left(address: str) -> None:
    host, _, port = address.removeprefix("http://").partition(":")
    request = b"GET /gradio_api/queue/data?session_hash=twice HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert call(address, "suit", ["mini"], "twice")[-1]["success"]
    with socket.create_connection((host, int(port)), timeout=SECONDS) as stays:
        with socket.create_connection((host, int(port)), timeout=SECONDS) as goes:
            for client in (stays, goes):
                client.sendall(request)
                assert client.recv(2**12).startswith(b"HTTP/1.1 200")
        until(lambda: ask(address, "gradio_api/queue/data?session_hash=twice")[0] == 404)
        while stays.recv(2**12):
            pass


def test_answers_that_nobody_fetches(address: str) -> None:
    event = {"data": ["mini"], "fn_index": number_of(address, "suit")}

    def ask_as(session: str) -> int:
        return post(address, "gradio_api/queue/join", {**event, "session_hash": session})[0]

    limits = Limits()
    assert {ask_as(f"unheard{number}") for number in range(2 * limits.unheard)} == {200}
    assert ask(address, "gradio_api/queue/data?session_hash=unheard0")[0] == 404
    statuses = [ask_as("greedy") for _ in range(2 * limits.unfetched)]
    assert statuses == sorted(statuses), "first it is let in, then no longer"
    assert statuses[0] == 200
    assert statuses[-1] == 503
    messages(address, "greedy")
    assert ask_as("greedy") == 200


def test_events_are_not_summed_up(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradio does so with pandas, over the last 10,000 events after each; it falls over some names for good."""
    from gradio.queueing import Queue

    asked: list[Any] = []
    monkeypatch.setattr(Queue, "_get_df", staticmethod(asked.append))
    for _ in range(3):
        assert call(address, "suit", ["mini"], "counted")[-1]["success"]
    assert asked == []


def test_what_is_no_http(address: str) -> None:
    assert status(raw(address, b"\x16\x03\x01 no http\r\n\r\n")) == 400
    upgrade = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    upgrade += b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=SECONDS) as client:
        client.sendall(upgrade)
        assert client.recv(2**12).startswith(b"HTTP/1.1 ")


@pytest.mark.allow_hosts(["127.0.0.1", "::1"])
def test_it_listens_at_an_address_of_ipv6(tiny: Any) -> None:
    try:
        free_port("::1", 0)
    except InputError:
        pytest.skip("no IPv6 here")
    with serving(tiny, lambda name: tiny, host="::1", port=0) as (place, _):
        assert place.startswith("http://[::1]:")
        assert ask(place, "config")[0] == 200
