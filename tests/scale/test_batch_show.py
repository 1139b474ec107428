"""What a person sees of a run: a bar on a terminal, lines elsewhere, failures by name, and the outcome."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from batch_runs import CLASSES

from cliper.cli import batch_show
from cliper.cli.batch_show import Progress, show_outcome
from cliper.scale.manifest import Record
from cliper.scale.run import Tally
from cliper.scale.sources import find_source


def test_lines_where_there_is_no_terminal(photos: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10, 1000, 10))
    monkeypatch.setattr(batch_show, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    with Progress(find_source(str(photos))) as progress:
        progress._total = 12
        for number in range(3):
            progress.seen(Record(f"k{number}"), False)  # of an earlier run: they say nothing of the rate
        for number in range(3):
            progress.seen(Record(f"n{number}"), True)
        progress.seen(Record.failed("b", "no\npicture"), True)
    lines = capsys.readouterr().err.splitlines()
    # One picture every 10 s; a line when more than 30 s have gone by.
    assert lines == [
        "cliper: 4 of 12 pictures, 0 failed; 40 s each, 5:20 min left",
        "cliper: error: b: no picture",
    ]


def test_very_many_failures_are_counted(photos: Path, capsys: Any) -> None:
    with Progress(find_source(str(photos))) as progress:
        for number in range(250):
            progress.seen(Record.failed(f"p{number}", "bad"), True)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 101
    assert lines[-1] == "cliper: error: and 150 more; the manifest names them"


def test_names_that_a_terminal_would_obey(photos: Path, capsys: Any) -> None:
    with Progress(find_source(str(photos))) as progress:
        progress.seen(Record.failed("a\nb\x1b[2Jc\udcff \u202e.png", "bad\x07"), True)
    show_outcome(Tally(), ["out\n/x"], 1.0)
    printed = capsys.readouterr()
    assert printed.err == "cliper: error: a\\nb\\x1b[2Jc\\udcff \\u202e.png: bad\\x07\n"
    assert printed.out.splitlines()[1:] == ["wrote out\\n/x"]


def test_the_outcome(capsys: Any) -> None:
    show_outcome(Tally(done=90, failed=2, kept=8), [f"f{number}" for number in range(22)], 3700.0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "100 pictures: 98 done, 8 of them earlier, 2 failed; 1:01:40; 0.0243 a second"
    assert lines[1:3] == ["wrote f0", "wrote f1"]
    assert lines[-1] == "... and 2 files more beside them"


def test_a_bar_on_a_terminal(photos: Path, clip_folder: Path, tmp_path: Path) -> None:
    (photos / "bad[red].png").write_text("no picture")
    reader, writer = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "cliper", "batch", photos, "-c", CLASSES, "-m", clip_folder, "-o", tmp_path / "out"],
        stdout=subprocess.DEVNULL,
        stderr=writer,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "200", "OMP_NUM_THREADS": "1"},
    )
    os.close(writer)
    shown = b""
    while True:
        try:
            data = os.read(reader, 4096)
        except OSError:  # how Linux says that nobody writes any more
            break
        if not data:
            break
        shown += data
    os.close(reader)
    assert process.wait(timeout=60) == 1
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert "13/13" in text
    assert "cliper: error: bad[red].png: expected a picture" in text
