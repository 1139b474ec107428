"""The page over loopback, without a browser: what it fetches, serves and opens, and what it does not."""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cliper.examples import example_photo
from cliper.web.page.run import serving

pytestmark = [
    pytest.mark.allow_hosts(["127.0.0.1"]),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::Warning:gradio.queueing"),  # what it does with pandas is its business
]


@pytest.fixture(scope="module")
def address(tiny: Any) -> Iterator[str]:
    changed = ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR", "no_proxy", "NO_PROXY")
    before = {key: os.environ.get(key) for key in changed}
    with serving(tiny, lambda name: tiny, port=0) as (place, public):
        assert public is None
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        assert folder.is_dir()
        yield place
    assert {key: os.environ.get(key) for key in changed} == before
    assert not folder.exists()


def ask(address: str, path: str, **options: Any) -> tuple[int, str]:
    request = urllib.request.Request(f"{address}/{path}", **options)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def config(address: str) -> dict[str, Any]:
    status, text = ask(address, "config")
    assert status == 200
    return json.loads(text)


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
    status, _ = ask(
        address,
        "gradio_api/run/segment",
        data=json.dumps({"data": []}).encode(),
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    assert status >= 400


def test_templates_hold_nothing_that_a_visitor_types(address: str) -> None:
    """Gradio compiles templates as programs; ours are constant, without a place for a value."""
    own = [item["props"] for item in config(address)["components"] if "html_template" in item["props"]]
    assert len(own) == 4
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
        "gradio_api/proxy=https://example.hf.space/x",
    ],
)
def test_no_file_and_no_address_is_opened(address: str, path: str) -> None:
    assert ask(address, path)[0] == 403


def join(address: str, function: str, data: list[Any], session: str) -> tuple[int, str]:
    """Call a function of the page as the browser does; whether it was let into the queue."""
    settings = config(address)
    index = next(item["id"] for item in settings["dependencies"] if item["api_name"] == function)
    body = {"data": data, "fn_index": index, "session_hash": session, "trigger_id": None, "event_data": None}
    return ask(
        address,
        "gradio_api/queue/join",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
        method="POST",
    )


def queue(address: str, function: str, data: list[Any], session: str) -> list[dict[str, Any]]:
    """The messages of such a call."""
    status, text = join(address, function, data, session)
    assert status == 200, text
    _, stream = ask(address, f"gradio_api/queue/data?session_hash={session}")
    messages = [json.loads(line.removeprefix("data:")) for line in stream.splitlines() if line.startswith("data:")]
    return [message for message in messages if message["msg"].startswith("process")]


def test_the_example_and_an_address_in_its_place(address: str) -> None:
    taken = queue(address, "take_example", [], "one")[-1]
    assert taken["success"], taken
    file, classes = taken["output"]["data"]
    assert classes == ["horse"]
    assert Path(file["path"]).read_bytes() == example_photo().read_bytes()
    assert str(example_photo().parent) not in json.dumps(taken)

    names = ["conference", 64, 0, 0.0, 0.1]

    def segment(picture: Any) -> list[dict[str, Any]]:
        model = config(address)["components"]
        start = next(item["props"]["value"] for item in model if item["props"].get("label") == "Model")
        return queue(address, "segment", [picture, ["horse"], "none", [], start, "none", *names, None], "two")

    done = segment(file)
    assert done[-1]["success"], done[-1]
    assert "found in 1024 x 664 pixels" in json.dumps(done)
    for place in ("/etc/passwd", str(example_photo())):
        refused = segment({"path": place, "meta": {"_type": "gradio.FileData"}})
        assert not refused[-1]["success"], place
        assert "Traceback" not in json.dumps(refused)
    quoted = urllib.parse.quote(file["path"])
    assert ask(address, f"gradio_api/file={quoted}", method="HEAD")[0] == 200


@pytest.mark.parametrize("position", range(12))
def test_no_input_of_the_page_is_fetched_from_an_address(address: str, position: int) -> None:
    """Gradio would fetch a file that any input names, not the picture's only."""
    data: list[Any] = [None] * 12
    data[position] = [{"path": "http://example.com/a.png", "meta": {"_type": "gradio.FileData"}}]
    assert join(address, "segment", data, "three") == (403, "no address is fetched here")
