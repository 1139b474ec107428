"""Write the tables of docs/accuracy.md from benchmarks/results.

``python docs/generate_accuracy.py`` writes the page; with ``--check`` it fails if it is out of date.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from generate_performance import RESULTS, read, source, write_pages

MIN_SHOWN_IOU = 0.3  # of a class of ADE20K


def percent(value: float | None) -> str:
    """With one decimal; blank for None."""
    return "" if value is None else f"{100 * value:.1f}"


def changes(row: dict[str, Any]) -> str:
    """What differs from the recommended settings."""
    parts = [f"{name} {value}" for name, value in row["settings"].items()]
    parts += ["templates chosen on the other half"] if row["choose_templates"] else []
    return ", ".join([*parts, *([f"refiner {row['refiner']}"] if row["refiner"] else [])]) or "none"


def difference(row: dict[str, Any]) -> str:
    """In points, with its interval and the baseline."""
    found = row.get("difference")
    if found is None:
        return ""
    value, low, high = (f"{100 * found[key]:+.1f}" for key in ("miou", "low", "high"))
    return f"{value} ({low} to {high}) to {row['baseline']}"


def row_table(report: dict[str, Any], data: str) -> str:
    """A line for each row of a data set."""
    shown = [name for name in ("person", "tvmonitor") if data == "voc21"]
    headings = ["row", "changes", "vocabulary", "mIoU, half for choosing", "mIoU", "difference", "mIoU all", *shown]
    table = [[*headings, "s/image"], ["---"] * 3 + ["---:"] * (len(headings) - 2)]
    for row in report["rows"][data]:
        words = row["vocabulary"] if row["vocabulary"] == "curated" else f"{row['vocabulary']}, {row['background']}"
        classes = [percent(row["iou"].get(name)) for name in shown]
        halves = [percent(row["miou"][half]) for half in ("choose", "report")]
        numbers = [*halves, difference(row), percent(row["miou_all"]), *classes, f"{row['seconds_per_image']:.3f}"]
        table.append([row["name"], changes(row), words, *numbers])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table)


def robust_table(report: dict[str, Any], data: str) -> str:
    """A line for each name: its mIoU with each vocabulary, their mean and minimum."""
    names: dict[str, list[dict[str, Any]]] = {}
    for row in report["rows"][data]:
        if "robust_miou" in row:
            names.setdefault(row["name"], []).append(row)
    words = list(dict.fromkeys(row["vocabulary"] for rows in names.values() for row in rows))
    table = [["row", *words, "robust mean", "robust minimum"], ["---"] + ["---:"] * (len(words) + 2)]
    for name, rows in names.items():
        by_words = {row["vocabulary"]: percent(row["miou"]["report"]) for row in rows}
        robust = [percent(rows[0]["robust_miou"][key]) for key in ("mean", "minimum")]
        table.append([name, *(by_words.get(one, "") for one in words), *robust])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table)


def data_section(data: str) -> str:
    """Both tables of a data set and their source."""
    if not (RESULTS / "accuracy.json").is_file():
        return "Not measured yet."
    report = read("accuracy")
    images = report["images"][data]
    text = (
        f"{images['choose']} images for choosing and {images['report']} reported, {report['model']}, in percent; "
        f"intervals of 95 % from {report['resamples']} resamples of the reported images. {source('accuracy', report)}"
    )
    return "\n\n".join([robust_table(report, data), row_table(report, data), text])


def first_words() -> str:
    """mIoU of both versions of the bundled checkpoint, with and without the filter of background words."""
    if not (RESULTS / "first_words.json").is_file():
        return "Not measured yet."
    report = read("first_words")
    asked = [name for name in next(iter(report["models"].values())) if ", " in name]
    table = [["checkpoint, refiner", *asked], ["---"] + ["---:"] * len(asked)]
    for model, found in report["models"].items():
        cells = [
            f"{percent(found[one]['filtered']['miou'])} / {percent(found[one]['not filtered']['miou'])}"
            for one in asked
        ]
        table.append([model, *cells])
    both = [name for name in report["models"] if name.endswith(", none")]
    classes = [["IoU, no refiner", *both], ["---"] + ["---:"] * len(both)]
    for one in asked[1:]:
        by_model = [report["models"][name][one]["filtered"]["iou"] for name in both]
        for label in by_model[-1]:
            values = [iou.get(label) for iou in by_model]
            if one.startswith("voc") or max(value or 0 for value in values) >= MIN_SHOWN_IOU:
                classes.append([f"{one.partition(',')[0]}: {label}", *map(percent, values)])
    parts = ["\n".join(f"| {' | '.join(cells)} |" for cells in rows) for rows in (table, classes)]
    return "\n\n".join([*parts, source("first_words", report)])


PAGES = {
    "docs/accuracy.md": {
        "first_words": first_words,
        "voc21": partial(data_section, "voc21"),
        "ade150": partial(data_section, "ade150"),
    }
}


if __name__ == "__main__":
    write_pages(PAGES)
