"""``cliper demo``: its options, and what goes wrong before anything is served."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from cliper.web.page import run
from cliper.web.page.actions import one_line

Command = Callable[..., Any]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the command would have served."""
    calls: list[dict[str, Any]] = []

    @contextmanager
    def serving(start: Any, load: Any, **options: Any) -> Iterator[tuple[str, str | None]]:
        calls.append({"start": start, "load": load, **options})
        yield "http://127.0.0.1:1", "https://public" if options["share"] else None

    monkeypatch.setattr(run, "serving", serving)
    monkeypatch.setattr(run, "interruptions", lambda: nullcontext(lambda: None))
    monkeypatch.setattr(run, "free_port", lambda host, port: port)
    return calls


def test_it_stays_on_this_machine_unless_asked(command: Command, served: list[Any], clip_folder: Path) -> None:
    ended = command("demo", "--model", clip_folder, "--size", 80, "--refiner", "self")
    assert (ended.code, ended.out, ended.err) == (0, "the page is at http://127.0.0.1:1\n", "")
    (call,) = served
    assert (call["host"], call["port"], call["share"]) == ("127.0.0.1", 7860, False)
    assert call["start"].settings.size == 80
    assert call["start"].refiner.name == "self"
    assert call["load"](clip_folder).refiner is None


def test_share_and_other_addresses_are_said(command: Command, served: list[Any], clip_folder: Path) -> None:
    ended = command("demo", "--model", clip_folder, "--share", "--host", "0.0.0.0", "--port", 0)
    assert ended.code == 0
    assert "https://public" in ended.out
    assert re.fullmatch(r"cliper: warning: 0\.0\.0\.0 is reachable from other machines.*\n", ended.err)
    assert served[0]["share"]


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_a_port_that_is_taken(command: Command) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = command("demo", "--port", port, "--model", "no such model")
    assert ended.code == 2
    assert f"127.0.0.1 port {port}" in ended.err
    assert "--port" in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_a_host_that_is_not_this_machines(command: Command) -> None:
    ended = command("demo", "--host", "203.0.113.1", "--port", 0)
    assert ended.code == 2
    assert "203.0.113.1" in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_without_gradio_the_extra_is_named(
    command: Command, monkeypatch: pytest.MonkeyPatch, clip_folder: Path
) -> None:
    for name in [name for name in sys.modules if name.startswith("cliper.web.page.")]:
        if name.rsplit(".", 1)[1] in ("build", "look", "components"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "gradio", None)
    ended = command("demo", "--port", 0, "--model", clip_folder)
    assert ended.code == 2
    assert "pip install 'cliper[web]'" in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("debug", [False, True])
def test_what_is_unexpected_has_a_traceback_where_it_is_asked_for(
    command: Command, served: list[Any], monkeypatch: pytest.MonkeyPatch, clip_folder: Path, debug: bool
) -> None:
    said: list[str] = []

    def visited() -> None:
        try:
            raise ValueError("a detail\nof it")
        except ValueError as error:
            said.append(one_line(error))

    monkeypatch.setattr(run, "interruptions", lambda: nullcontext(visited))
    ended = command("demo", "--model", clip_folder, *(["--debug"] if debug else []))
    assert ended.code == 0
    line = "cliper: warning: page: unexpected ValueError: a detail of it\n"
    assert ended.err.endswith(line)
    assert ("Traceback" in ended.err, "in visited" in ended.err) == (debug, debug)
    assert debug or ended.err == line
    assert "Traceback" not in command("demo", "--model", clip_folder).err, "the next run is as it says"
    assert "a detail" not in "".join(said)


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly(clip_folder: Path, tmp_path: Path, number: signal.Signals) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "cliper", "demo", "--port", "0", "--model", str(clip_folder), "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], 120)[0], "no address within two minutes"
        line = process.stdout.readline()
        assert re.fullmatch(r"the page is at http://127\.0\.0\.1:\d+\n", line)
        assert list(temporary.glob("cliper-demo-*"))
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (0, "", "")
    assert not list(temporary.glob("cliper-demo-*"))


def test_an_install_carries_the_pages_own_files() -> None:
    import tomllib

    root = Path(__file__).resolve().parents[3]
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["cliper"]
    package = root / "src" / "cliper"
    carried = {path for pattern in patterns for path in package.glob(pattern)}
    needed = {path for path in (package / "web" / "page").iterdir() if path.suffix in (".css", ".html", ".js")}
    assert len(needed) >= 7
    assert needed <= carried
