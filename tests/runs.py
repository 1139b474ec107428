"""Runs of ``cliper batch`` and ``cliper evaluate`` in processes of their own, and comparisons of what they wrote."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from cliper.runner.items import Source

__all__ = [
    "CLASSES",
    "Draw",
    "by_input",
    "content",
    "descendants",
    "ended",
    "lines_written",
    "make_photos",
    "names_of",
    "records",
    "said",
    "start",
    "statuses",
    "wait_for_lines",
]

CLASSES = "dog; green grass; person: man, woman"

Draw = Callable[..., Image.Image]


def make_photos(folder: Path, draw: Draw, count: int = 12) -> Path:
    """Images of three sizes in three folders."""
    for number in range(count):
        path = folder / ["", "garden", "garden/far"][number % 3] / f"p{number:03}.{['png', 'jpg'][number % 2]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(*[(96, 64), (64, 96), (80, 80)][number // 2 % 3], seed=number).save(path)
    return folder


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """``cliper`` in a process of its own, one thread for the model; options are those of ``Popen``."""
    usual: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "env": {**os.environ, "OMP_NUM_THREADS": "1"},
        # A background job of a shell ignores it, and so would the processes that it starts.
        "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    }
    return subprocess.Popen([sys.executable, "-m", "cliper", *map(str, arguments)], **{**usual, **options})


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, output and errors."""
    out, errors = process.communicate(timeout=300)
    return process.returncode, out, errors


def said(errors: str) -> list[str]:
    """Lines of the error stream, but for blank ones, ``loading ...`` and the progress of a slow machine."""
    status = re.compile(r"cliper: (loading |\d+( of \d+)? images, )")
    return [line for line in errors.splitlines() if line and not status.match(line)]


def records(out: Path) -> list[dict[str, Any]]:
    """The manifest's lines."""
    return [json.loads(line) for line in (out / "manifest.jsonl").read_bytes().splitlines()]


def by_input(out: Path) -> dict[str, dict[str, Any]]:
    """The manifest's lines by image; none has two."""
    lines = records(out)
    found = {line["input"]: line for line in lines}
    assert len(found) == len(lines)
    return found


def statuses(out: Path) -> dict[str, str]:
    """The status of each image in the manifest."""
    return {name: line["status"] for name, line in by_input(out).items()}


def lines_written(out: Path) -> int:
    """How many lines the manifest has, now."""
    path = out / "manifest.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_lines(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until the manifest has so many lines or the process has ended."""
    until = time.monotonic() + 240
    while lines_written(out) < count and process.poll() is None:
        assert time.monotonic() < until, "the run does not get on"
        time.sleep(0.005)


def content(out: Path) -> dict[str, object]:
    """Every file by name: its bytes, but of the manifest its lines without the seconds."""
    files = (path for path in sorted(out.rglob("*")) if path.is_file())
    found: dict[str, object] = {path.relative_to(out).as_posix(): path.read_bytes() for path in files}
    found["manifest.jsonl"] = [{**line, "seconds": 0} for line in records(out)]
    return found


def names_of(source: Source) -> list[str]:
    """Names of the images of a source, which are numbered from 1."""
    items = list(source.items())
    assert [item.number for item in items] == list(range(1, len(items) + 1))
    assert source.count() in (None, len(items))
    return [item.name for item in items]


def descendants(process: int) -> list[int]:
    """Numbers of all processes that one has started, and those have (Linux)."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            # The name, in brackets, may hold anything.
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(path.parent.name)] = int(parent)
    found = [process]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]
