"""The page over loopback, without a browser: what it fetches, serves and opens, and what it does not."""

from __future__ import annotations

import json
import os
import re
import select
import socket
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_over_http import ask, call, config, join, messages, number_of, post

from cliper.examples import example_photo
from cliper.web import drain
from cliper.web.page.limits import Limits
from cliper.web.page.run import serving

pytestmark = [
    pytest.mark.allow_hosts(["127.0.0.1"]),
    pytest.mark.full,
    pytest.mark.filterwarnings("ignore::Warning:gradio.queueing"),  # what it does with pandas is its business
]


@pytest.fixture(scope="module")
def address(tiny: Any) -> Iterator[str]:
    changed = ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR", "no_proxy", "NO_PROXY")
    before = {key: os.environ.get(key) for key in changed}
    with serving(tiny, lambda name: tiny, port=0, limits=Limits(upload_megabytes=1)) as (place, public):
        assert public is None
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        assert folder.is_dir()
        yield place
    assert {key: os.environ.get(key) for key in changed} == before
    assert not folder.exists()


def test_nothing_is_loaded_from_elsewhere(address: str) -> None:
    status, page = ask(address, "")
    assert status == 200
    assert not re.findall(r"<(?:script|img|iframe)[^>]+src=[\"']https?:", page)
    assert not re.findall(r"<link[^>]+rel=[\"'](?:stylesheet|preconnect|preload)[\"'][^>]+href=[\"']https?:", page)
    for found in re.findall(r"(?:href|src)=[\"'](\.?/?theme\.css[^\"']*)", page):
        assert "googleapis" not in ask(address, found.lstrip("./"))[1]
    settings = config(address)
    assert settings["analytics_enabled"] is False
    assert settings["stylesheets"] == []
    assert settings["footer_links"] == []


def test_no_endpoint_is_offered_to_programs(address: str) -> None:
    assert {item["api_visibility"] for item in config(address)["dependencies"]} == {"private"}
    for path in ("run/segment", "api/segment", "call/segment", "call/v2/segment"):
        assert post(address, f"gradio_api/{path}", {"data": []})[0] == 404


def test_templates_hold_nothing_that_a_visitor_types(address: str) -> None:
    """Gradio compiles templates as programs; ours are constant, without a place for a value."""
    own = [item["props"] for item in config(address)["components"] if "html_template" in item["props"]]
    assert len(own) == 6
    for props in own:
        template = props["html_template"] + props["css_template"]
        assert not re.search(r"\$\{|\{\{|`|\\", template)


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/file=/etc/passwd",
        f"gradio_api/file={example_photo()}",
        f"gradio_api/file={Path(__file__)}",
        "gradio_api/file=pyproject.toml",
        "gradio_api/file=https://example.com/",
        "gradio_api/file=HTTP://example.com/",
        "gradio_api/file=%68ttp://example.com/",
        "gradio_api/file/https://example.com/",
        "gradio_api/file/http:/%2Fexample.com/",
        "gradio_api/proxy=https://example.hf.space/x",
    ],
)
def test_no_file_and_no_address_is_opened(address: str, path: str) -> None:
    assert ask(address, path)[0] == 403


def test_the_example_and_an_address_in_its_place(address: str) -> None:
    taken = call(address, "take_example", [], "one")[-1]
    assert taken["success"], taken
    file, classes = taken["output"]["data"]
    assert classes == ["horse"]
    assert Path(file["path"]).read_bytes() == example_photo().read_bytes()
    assert str(example_photo().parent) not in json.dumps(taken)

    names = ["conference", 64, 0, 0.0, 0.1]

    def segment(picture: Any) -> list[dict[str, Any]]:
        model = config(address)["components"]
        start = next(item["props"]["value"] for item in model if item["props"].get("label") == "Model")
        return call(address, "segment", [picture, ["horse"], "none", [], start, "none", *names, None], "two")

    done = segment(file)
    assert done[-1]["success"], done[-1]
    assert "found in 1024 x 664 pixels" in json.dumps(done)
    quoted = urllib.parse.quote(file["path"])
    assert ask(address, f"gradio_api/file={quoted}", method="HEAD")[0] == 200


@pytest.mark.parametrize("position", range(12))
@pytest.mark.parametrize("place", ["http://example.com/a.png", "/etc/passwd", str(example_photo())])
def test_no_input_of_the_page_is_a_file_from_elsewhere(address: str, position: int, place: str) -> None:
    """Gradio would fetch a file that any input names, not the picture's only."""
    data: list[Any] = [None] * 12
    data[position] = [{"path": place, "meta": {"_type": "gradio.FileData"}}]
    status, text = join(address, "segment", data, "three")
    assert (status, "picture that was uploaded" in text) == (403, True)


def test_nothing_that_a_visitor_sends_fills_the_operators_terminal(
    address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    names = ("run/none", "api/none", "call/none", "call/v2/none", "run/segment", "call/v2/segment", "stream/none")
    for path in (*(f"gradio_api/{name}" for name in names), "gradio_api/component_server", "login", "else"):
        assert post(address, path, {"data": []})[0] == 404, path
    event = {"data": [None], "fn_index": number_of(address, "suit"), "session_hash": "four"}
    for changed, status in (
        ({"fn_index": 10**6}, 404),
        ({"fn_index": True}, 404),
        ({"fn_index": None}, 404),
        ({"fn_index": number_of(address, "js_fn")}, 404),
        ({"data": []}, 400),
        ({"data": None}, 400),
        ({"data": [None] * 2}, 400),
        ({"session_hash": None}, 400),
        ({"session_hash": "x" * 1000}, 400),
        ({"trigger_id": "x"}, 400),
        ({"batched": True, "event_id": "x", "simple_format": True}, 200),
    ):
        assert post(address, "gradio_api/queue/join", {**event, **changed})[0] == status, changed
    for body in (b"", b"[]", b"no json", b"\xff", b"[" * 10**5, b"9" * 10**5):
        assert post(address, "gradio_api/queue/join", body)[0] == 400, body[:10]
    assert messages(address, "four")[-1]["success"]
    assert "model: expected one of" in json.dumps(call(address, "suit", [["mini"]], "five"))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("path", ["gradio_api/queue/join", "gradio_api/upload"])
def test_who_is_still_sending_reads_that_it_is_too_much(
    address: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "PATIENCE", 60.0)  # however slow this machine is
    host, _, port = address.removeprefix("http://").partition(":")
    size = 3 * 2**20
    head = f"POST /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {size}\r\nConnection: close\r\nContent-Type: "
    begin = b""
    if path.endswith("upload"):
        head += "multipart/form-data; boundary=b\r\n\r\n"
        begin = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    else:
        head += "application/json\r\n\r\n"
    body = begin + b"x" * (size - len(begin))
    with socket.create_connection((host, int(port)), timeout=60) as client:
        client.sendall(head.encode() + body[: size // 2])  # more than is allowed
        select.select([client], [], [], 0.5)  # a server that does not read on has answered, and hung up, by then
        for start in range(size // 2, size, 2**16):
            client.sendall(body[start : start + 2**16])
        assert client.recv(2**16).startswith(b"HTTP/1.1 413 ")
