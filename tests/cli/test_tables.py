"""Tables and summaries on standard output."""

from __future__ import annotations

from typing import Any

import pytest

from cliper.cli.tables import format_duration, print_summary, print_table
from cliper.runner.run import Counts


def test_cells_are_shown_as_they_are(capsys: Any) -> None:
    print_table(("class", "area"), [("[bold]dog[/bold]", "1%"), (":smile: a\nb\x1b[31m", "22%")], numbers={"area"})
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0].split() == ["class", "area"]
    assert lines[1:] == ["[bold]dog[/bold]        1%", ":smile: a\\nb\\x1b[31m   22%"]


def test_table_is_not_folded_in_a_pipe(capsys: Any) -> None:
    print_table(("a", "b", "c"), [("x" * 50, "y" * 50, "z" * 50)])
    assert capsys.readouterr().out.splitlines()[1].split() == ["x" * 50, "y" * 50, "z" * 50]


def test_long_cell_is_cut(capsys: Any) -> None:
    print_table(("class",), [("word " * 100,)])
    (line,) = capsys.readouterr().out.splitlines()[1:]
    assert line.rstrip().endswith("...")
    assert len(line) <= 60


def test_summary_counts_images_and_lists_files(capsys: Any) -> None:
    print_summary(Counts(done=90, failed=2, skipped=8), [f"f{number}" for number in range(22)], 3700.0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "100 images: 98 done, 8 of them earlier, 2 failed; 1:01:40 h; 0.0243 images/s"
    assert lines[1:3] == ["wrote f0", "wrote f1"]
    assert lines[-1] == "... and 2 more files beside them"


def test_summary_escapes_control_characters(capsys: Any) -> None:
    print_summary(Counts(), ["out\n/x"], 1.0)
    assert capsys.readouterr().out.splitlines()[1:] == ["wrote out\\n/x"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.9, "59.9 s"), (320, "5:20 min"), (3700, "1:01:40 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
