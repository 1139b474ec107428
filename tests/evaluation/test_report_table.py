"""Tables of reports in three formats."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from cliper.errors import InputError
from cliper.evaluation.report_table import TABLE_FORMATS, class_table, read_reports, summary_table


def report(**changes: Any) -> dict[str, Any]:
    """A report of two classes, one of which is in no ground truth."""
    metrics = {
        "miou": 0.5,
        "pixel_accuracy": 0.75,
        "class_iou": {"background": 0.6, "dog": 0.4, "cat | tom": None},
        "matrix": [[3, 1, 0], [1, 2, 0], [0, 0, 0]],
        "refiner": "self",
    }
    published = {"miou_percent": 51.6, "difference_percent": -1.6}
    return {
        "title": "3 images",
        "model": {"name": "mini_2"},
        "preset": "a/b",
        "images": 3,
        "seconds_per_image": 0.123456,
        "published": published,
        **metrics,
        **changes,
    }


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A report, one without anything optional, and an ablation."""
    variants = [{"label": name, **{k: v for k, v in report().items() if k not in ("title", "images")}} for name in "xy"]
    contents = [
        ("one", report()),
        ("two", report(miou=None, published=None, preset=None, model=None, seconds_per_image=None)),
        ("three", {**report(), "variants": [{**one, "published": None} for one in variants]}),
    ]
    paths = []
    for name, content in contents:
        path = tmp_path / name / "report.json"
        path.parent.mkdir()
        path.write_text(json.dumps(content))
        paths.append(path)
    return paths


def test_summary_has_a_row_for_each_report_and_variant(files: list[Path]) -> None:
    headings, *rows = summary_table(read_reports(files))
    assert headings[:5] == ["report", "model", "refiner", "preset", "mIoU"]
    assert rows == [
        ["one", "mini_2", "self", "a/b", "50.00", "51.60", "-1.60", "75.00", "3", "0.123"],
        ["two", "", "self", "", "", "", "", "75.00", "3", ""],
        ["three: x", "mini_2", "self", "a/b", "50.00", "", "", "75.00", "3", ""],
        ["three: y", "mini_2", "self", "a/b", "50.00", "", "", "75.00", "3", ""],
    ]


def test_class_table_has_a_column_for_each_report(files: list[Path]) -> None:
    assert class_table(read_reports(files[:2])) == [
        ["class", "one", "two"],
        ["background", "60.00", "60.00"],
        ["dog", "40.00", "40.00"],
        ["cat | tom", "", ""],
        ["mIoU", "50.00", ""],
    ]


def test_formats_escape_special_characters(files: list[Path]) -> None:
    table = class_table(read_reports(files[:1]))
    markdown = TABLE_FORMATS["md"](table).splitlines()
    assert markdown[:2] == ["| class | one |", "| --- | ---: |"]
    assert "| cat \\| tom |  |" in markdown
    assert list(csv.reader(io.StringIO(TABLE_FORMATS["csv"](table)))) == table
    latex = TABLE_FORMATS["latex"](summary_table(read_reports(files[:1]))).splitlines()
    assert latex[0] == r"\begin{tabular}{llllrrrrrr}"
    assert latex[3] == r"one & mini\_2 & self & a/b & 50.00 & 51.60 & -1.60 & 75.00 & 3 & 0.123 \\"
    assert latex[-1] == r"\end{tabular}"


def test_reports_of_one_name_are_labelled_by_their_paths(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "same" / "report.json" for folder in "ab"]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(report()))
    assert [row.name for row in read_reports(paths)] == [str(path) for path in paths]


def test_names_of_the_matrix_include_a_background_that_is_not_counted(files: list[Path]) -> None:
    assert read_reports(files)[0].labels == ["background", "dog", "cat | tom"]
    iou = {"dog": 0.4, "cat": None}
    files[0].write_text(json.dumps(report(class_iou=iou)))
    assert read_reports(files[:1])[0].labels == ["background", "dog", "cat"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"variants": 3}', "3", json.dumps(report(matrix=3))])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"report\.json'") as caught:
        read_reports([path])
    assert "\n" not in str(caught.value)
