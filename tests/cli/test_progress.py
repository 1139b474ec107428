"""Progress on standard error: a bar on a terminal, lines elsewhere, and failed images by name."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cliper.cli import progress as module
from cliper.cli.progress import Progress


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_without_terminal_a_line_is_logged_every_30_seconds(capsys: Any, clock: Clock) -> None:
    with Progress(12) as progress:
        for number in range(1, 9):
            clock.now += 10
            progress.advance(new=number > 3)  # those of an earlier run do not count for the rate
        progress.advance(error="b: no\nimage")
    assert capsys.readouterr().err.splitlines() == [
        "cliper: 4 of 12 images, 0 failed",
        "cliper: 8 of 12 images, 0 failed; 10 s/image, 40.0 s left",
        "cliper: error: b: no\\nimage",
    ]


def test_status_is_logged_before_the_rate(capsys: Any, clock: Clock) -> None:
    with Progress(10) as progress:
        progress.status = "mIoU 43.1"
        for _ in range(4):
            clock.now += 10
            progress.advance()
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "cliper: 4 of 10 images, 0 failed; mIoU 43.1; 10 s/image, 1:00 min left"


@pytest.mark.parametrize("result", [None, OSError("unreachable")])
def test_total_that_cannot_be_counted_is_left_out(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, result: Exception | None
) -> None:
    def count() -> None:
        if result is not None:
            raise result

    monkeypatch.setattr(module, "_LOG_INTERVAL", -1.0)
    with Progress(count) as progress:
        progress.advance()
    assert capsys.readouterr().err.startswith("cliper: 1 images, 0 failed")


def test_many_failures_are_counted(capsys: Any) -> None:
    with Progress(250) as progress:
        for number in range(250):
            progress.advance(error=f"p{number}: bad")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 101
    assert lines[-1] == "cliper: error: 150 more images failed"


def test_control_characters_are_escaped(capsys: Any) -> None:
    with Progress(1) as progress:
        progress.advance(error="a\nb\x1b[2Jc\udcff \u202e.png: bad\x07")
    assert capsys.readouterr().err == "cliper: error: a\\nb\\x1b[2Jc\\udcff \\u202e.png: bad\\x07\n"


def run_on_terminal(*arguments: object, **environment: str) -> tuple[int, str]:
    """Run ``cliper`` with standard error on a terminal of 200 columns; its exit code and what the terminal got."""
    reader, writer = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "cliper", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=writer,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "200", "OMP_NUM_THREADS": "1", **environment},
    )
    os.close(writer)
    shown = b""
    while True:
        try:
            data = os.read(reader, 4096)
        except OSError:  # on Linux: the other end is closed
            break
        if not data:
            break
        shown += data
    os.close(reader)
    return process.wait(timeout=60), shown.decode()


@pytest.mark.full
@pytest.mark.parametrize("no_color", [False, True])
def test_bar_on_a_terminal(
    clip_folder: Path, tmp_path: Path, make_image: Callable[..., Image.Image], no_color: bool
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(3):
        make_image(seed=number).save(images / f"{number}.png")
    (images / "bad[red].png").write_text("no image")
    arguments = ("batch", images, "-c", "dog", "-m", clip_folder, "-o", tmp_path / "out")
    code, shown = run_on_terminal(*arguments, **({"NO_COLOR": "1"} if no_color else {}))
    assert code == 1
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert "4/4" in text
    assert "cliper: error: bad[red].png: expected" in text
    # SGR codes that set a colour: 30 to 49, 90 to 107.
    colours = re.findall(r"\x1b\[(?:\d+;)*(?:[34]\d|9\d|10[0-7])[;m]", shown)
    assert bool(colours) is not no_color
