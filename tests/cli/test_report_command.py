"""``cliper report`` on the report of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataset_trees.own import own_arguments, own_data, report_of


@pytest.fixture
def report_file(command: Any, clip_folder: Path, tmp_path: Path, make_image: Any) -> Path:
    """The report of two images."""
    own_data(tmp_path, 2, make_image)
    assert command(*own_arguments(tmp_path, clip_folder), "-b", "wall", "-o", tmp_path / "run").code == 0
    return tmp_path / "run" / "report.json"


def test_table_and_confusion_matrix_of_an_evaluation(command: Any, report_file: Path, tmp_path: Path) -> None:
    image = tmp_path / "new" / "confusion.png"
    ended = command("report", report_file, "--confusion", image)
    assert (ended.code, ended.err) == (0, f"wrote {image}\n")  # the table is all that is on standard output
    report = report_of(report_file.parent)
    cells = [cell.strip() for cell in ended.out.splitlines()[2].strip("|").split("|")]
    assert cells[0] == "run"
    assert cells[4] == f"{100 * report['miou']:.2f}"
    with Image.open(image) as drawn:
        assert min(drawn.size) > 100
    ended = command("report", report_file, "--per-class", "-f", "csv", "-o", tmp_path / "table.csv")
    assert (ended.code, ended.out) == (0, f"wrote {tmp_path / 'table.csv'}\n")
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["class", "background", "dog", "grass", "mIoU"]


def test_bad_use_is_one_line(command: Any, report_file: Path, tmp_path: Path) -> None:
    for flags, words in (
        (("report", tmp_path / "none.json"), "cannot read the report"),
        (("report", report_file, report_file, "--confusion", "a.png"), "expected one evaluation, got 2"),
        (("report", report_file, "--confusion", "a.jpg"), "expected a name ending in .png"),
        (("report", report_file, "-o", report_file / "x"), "expected a folder that can be written"),
    ):
        ended = command(*flags)
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert words in ended.err
