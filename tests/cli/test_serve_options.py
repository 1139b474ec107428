"""``cliper serve``: options that are refused before the model is loaded."""

from __future__ import annotations

import importlib
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def no_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("cliper.cli.serve.load_segmenter", loaded)


@pytest.mark.enable_socket
@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--queue-size", "0"], "'--queue-size': 0 is not in the range 1<=x<=10000"),
        (["--timeout", "0"], "'--timeout': 0.0 is not in the range"),
        (["--max-megabytes", "0"], "'--max-megabytes': 0.0 is not in the range"),
        (["--max-megapixels", "1000"], "'--max-megapixels': 1000.0 is not in the range"),
        (["--max-classes", "0"], "'--max-classes': 0 is not in the range"),
        (["--max-pixel-classes", "-1"], "'--max-pixel-classes': -1.0 is not in the range"),
        (["--max-patches", "0"], "'--max-patches': 0 is not in the range"),
        (["--max-texts", "0"], "'--max-texts': 0 is not in the range"),
        (["--batch-size", "0"], "'--batch-size': 0 is not in the range 1<=x<=64"),
        (["--batch-window", "-1"], "'--batch-window': -1.0 is not in the range"),
        (["--token", "two words"], "token: expected ASCII"),
        (["--token", ""], "token: expected ASCII"),
        (["--label-studio-folder", __file__], "is a file"),
        (["--port", "70000"], "70000"),
        (["--host", "256.256.256.256"], "cannot listen at 256.256.256.256"),
    ],
)
def test_option_out_of_range_is_refused(command: Callable[..., Any], options: list[str], said: str) -> None:
    ended = command("serve", "--port", "0", *options)
    assert ended.code == 2
    assert said in ended.err
    assert ended.err.count("\n") == 1
    assert "two words" not in ended.err


@pytest.mark.enable_socket
@pytest.mark.allow_hosts(["127.0.0.1"])
def test_taken_port_is_refused(command: Callable[..., Any]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        ended = command("serve", "--port", other.getsockname()[1])
    assert ended.code == 2
    assert "cannot listen at 127.0.0.1" in ended.err


@pytest.mark.parametrize("library", ["fastapi", "uvicorn", "python_multipart", "prometheus_client"])
def test_missing_package_is_named_with_its_extra(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == library or "cliper.server" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)  # as if it were not installed
    ended = command("serve")
    assert ended.code == 2
    assert "pip install 'cliper[server]'" in ended.err
    assert ended.err.count("\n") == 1


def test_empty_token_is_refused(command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes of ``CLIPER_TOKEN=$(program that fails)``, which must not open the service to everyone."""
    monkeypatch.setenv("CLIPER_TOKEN", "")
    ended = command("serve", "--port", "0")
    assert ended.code == 2
    assert "token: expected ASCII" in ended.err


def test_help_does_not_show_a_token(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLIPER_TOKEN", "hush-hush")
    assert "hush" not in command("serve", "--help").out


@pytest.mark.enable_socket
@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.parametrize(
    ("content", "classes", "background"),
    [
        (
            "classes: [dog, {person: [man, woman]}]\nbackground: wall; sky",
            ["dog", "person: man, woman"],
            ["wall", "sky"],
        ),
        ("classes: dog; cat\nbackground: none", ["dog", "cat"], ["none"]),
        ("size: 64", ["horse"], ["auto"]),
    ],
)
def test_page_begins_with_the_words_of_the_settings_file(
    command: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tiny: Any,
    tmp_path: Path,
    content: str,
    classes: list[str],
    background: list[str],
) -> None:
    (tmp_path / "words.yaml").write_text(content)
    found: list[Any] = []
    monkeypatch.setattr("cliper.cli.serve.load_segmenter", lambda _: tiny)
    server = importlib.import_module("cliper.server.run").Server
    monkeypatch.setattr(server, "__init__", lambda self, service, ready: found.append(service.example))
    monkeypatch.setattr(server, "run", lambda self, sockets: None)
    assert command("serve", "--port", "0", "-s", tmp_path / "words.yaml").code == 0
    assert found == [{"classes": classes, "background": background}]


@pytest.mark.enable_socket
@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.parametrize(("options", "opens"), [([], True), (["--no-browser"], False)])
def test_demo_opens_a_browser_when_it_is_ready(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tiny: Any, options: list[str], opens: bool
) -> None:
    found: list[str] = []
    monkeypatch.setattr("cliper.cli.serve.load_segmenter", lambda _: tiny)
    server = importlib.import_module("cliper.server.run").Server
    monkeypatch.setattr(server, "run", lambda self, sockets: self._ready())
    monkeypatch.setattr("webbrowser.open", found.append)
    ended = command("demo", "--port", "0", *options)
    assert ended.code == 0
    name, _, address = ended.out.split()
    assert name == "tiny"
    assert address.startswith("http://127.0.0.1:")
    for thread in threading.enumerate():
        if thread.name == "cliper-browser":
            thread.join(10)
    assert found == ([address] if opens else [])
