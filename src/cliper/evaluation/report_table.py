"""Tables of one or more ``report.json`` in Markdown, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliper.errors import InputError, quote_path, reraise

__all__ = ["TABLE_FORMATS", "ReportRow", "class_table", "read_reports", "summary_table"]

_VOCABULARY_COLUMNS = ("vocabulary", "mIoU all", "robust mean", "robust minimum")  # of reports with vocabularies


@dataclass(frozen=True)
class ReportRow:
    """One evaluation, or one variant of it: of an ablation, or with one of several vocabularies.

    Args:
        name: of the report, with the label of the variant.
        report: what ``report.json`` holds.
        metrics: the part of it with the numbers: itself, or a variant.
    """

    name: str
    report: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def class_iou(self) -> dict[str, float | None]:
        """IoU by class in [0, 1]; None for classes that are not in the ground truth."""
        values: dict[str, float | None] = self.metrics["class_iou"]
        return values

    @property
    def labels(self) -> list[str]:
        """Names of the rows of the confusion matrix."""
        names = [*self.class_iou, *self.metrics.get("distractors", ())]
        return names if len(names) == len(self.metrics["matrix"]) else ["background", *names]

    def cells(self) -> dict[str, str]:
        """The row of :func:`summary_table`, by heading."""
        report, metrics = self.report, self.metrics
        published = metrics.get("published") or {}
        robust = metrics.get("robust_miou") or {}
        alone = metrics is report  # the seconds of several variants are those of all of them
        return {
            "report": self.name,
            "model": (report["model"] or {}).get("name", ""),
            "refiner": metrics["refiner"],
            "preset": report["preset"] or "",
            "vocabulary": metrics.get("vocabulary", ""),
            "mIoU": _percent(metrics["miou"]),
            "mIoU all": _percent(metrics.get("miou_all")),
            "robust mean": _percent(robust.get("mean")),
            "robust minimum": _percent(robust.get("minimum")),
            "published": _format_number(published.get("miou_percent")),
            "difference": _format_number(published.get("difference_percent"), "+.2f"),
            "pixel accuracy": _percent(metrics["pixel_accuracy"]),
            "images": str(report["images"]),
            "s/image": _format_number(report["seconds_per_image"], ".3g") if alone else "",
        }


def read_reports(paths: Sequence[Path]) -> list[ReportRow]:
    """The evaluations of files that ``cliper evaluate`` wrote, in order; each variant of a report is one.

    Raises:
        InputError: a file cannot be read, or is no such report.
    """
    names = [path.absolute().parent.name if path.name == "report.json" else path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    rows = []
    for path, name in zip(paths, names, strict=True):
        with reraise((OSError, ValueError, RecursionError), InputError, f"cannot read the report {quote_path(path)}"):
            report = json.loads(path.read_text(encoding="utf-8"))
        try:
            variants = report.get("variants")
            found = [ReportRow(name, report, report)]
            if variants is not None:
                found = [ReportRow(f"{name}: {one['label']}", report, one) for one in variants]
            for row in found:
                row.cells()
                row.class_iou.items()
                row.labels  # noqa: B018 - the keys that are needed are there
        except (KeyError, TypeError, AttributeError, ValueError):
            name = quote_path(path)
            raise InputError(f"expected a report.json of cliper evaluate, got another file: {name}") from None
        rows += found
    return rows


def summary_table(rows: Sequence[ReportRow]) -> list[list[str]]:
    """Headings, and a row for each evaluation; numbers in percent."""
    cells = [row.cells() for row in rows]
    hidden = () if any("vocabulary" in row.metrics for row in rows) else _VOCABULARY_COLUMNS
    headings = [heading for heading in cells[0] if heading not in hidden]
    return [headings, *([row[heading] for heading in headings] for row in cells)]


def class_table(rows: Sequence[ReportRow]) -> list[list[str]]:
    """IoU in percent: headings, a row for each class, a column for each evaluation; the last row is the mIoU."""
    names = dict.fromkeys(name for row in rows for name in row.class_iou)
    table = [["class", *(row.name for row in rows)]]
    table += [[name, *(_percent(row.class_iou.get(name)) for row in rows)] for name in names]
    return [*table, ["mIoU", *(_percent(row.metrics["miou"]) for row in rows)]]


def _to_markdown(table: Sequence[Sequence[str]]) -> str:
    left = _left_columns(table)
    rule = ["---" if index < left else "---:" for index in range(len(table[0]))]
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in table]
    return "".join(f"| {' | '.join(row)} |\n" for row in [cells[0], rule, *cells[1:]])


def _to_csv(table: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    return text.getvalue()


def _to_latex(table: Sequence[Sequence[str]]) -> str:
    left = _left_columns(table)
    lines = [" & ".join(map(_escape_latex, row)) + r" \\" for row in table]
    columns = "l" * left + "r" * (len(table[0]) - left)
    body = [lines[0], r"\hline", *lines[1:]]
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", *body, r"\end{tabular}", ""])


def _left_columns(table: Sequence[Sequence[str]]) -> int:
    """Number of columns of texts; the others are numbers."""
    return table[0].index("mIoU") if table[0][0] == "report" else 1


def _escape_latex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {character: f"\\{character}" for character in "&%$#_{}"}
    return "".join(special.get(character, character) for character in " ".join(text.split()))


TABLE_FORMATS: dict[str, Callable[[Sequence[Sequence[str]]], str]] = {
    "md": _to_markdown,
    "csv": _to_csv,
    "latex": _to_latex,
}
"""From a table, headings first, to its text."""


def _percent(value: float | None) -> str:
    return _format_number(None if value is None else 100 * value)


def _format_number(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else format(value, form)
