"""Tables and summaries on standard output."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from cliper.cli.errors import is_quiet, printable

if TYPE_CHECKING:
    from cliper.checkpoints import ResolvedCheckpoint
    from cliper.runner.run import Counts

__all__ = ["format_duration", "print_found_classes", "print_model", "print_report", "print_summary", "print_table"]

_MAX_CELL_LENGTH = 60  # a class name may be a whole sentence
_MAX_FILES_SHOWN = 20
_MAX_REASONS = 10
_PIPE_WIDTH = 10_000  # in a pipe nothing is folded or cut: the lines are searched


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Collection[str] = ()) -> None:
    """Print a table.

    Args:
        headings: of the columns.
        rows: texts of the cells; long ones are cut.
        numbers: headings of the columns that are aligned to the right.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="right" if heading in numbers else "left")
    for row in rows:
        table.add_row(*map(_cell, row))
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    Console(highlight=False, markup=False, emoji=False, width=width).print(table)


def print_model(checkpoint: ResolvedCheckpoint, refiner: str | None) -> None:
    """Print which model the results come from, and what its users should know, unless the command is quiet."""
    if is_quiet():
        return
    entry = checkpoint.entry
    text = f"model: {checkpoint.name if entry is None else entry.title}"
    text += "" if refiner in (None, "none") else f", refiner {refiner}"
    click.echo(printable(text + (f". {entry.note}" if entry is not None and entry.note else "")))


def print_summary(counts: Counts, paths: Sequence[str], seconds: float) -> None:
    """Print how many images ``cliper batch`` has done, and the files about all images, unless it is quiet."""
    if is_quiet():
        return
    parts = [f"{counts.done + counts.skipped} done"]
    if counts.skipped:
        parts.append(f"{counts.skipped} of them earlier")
    if counts.failed:
        parts.append(f"{counts.failed} failed")
    rate = f"; {counts.done / seconds:.3g} images/s" if counts.done else ""
    click.echo(f"{counts.total} images: {', '.join(parts)}; {format_duration(seconds)}{rate}")
    for path in paths[:_MAX_FILES_SHOWN]:
        click.echo(printable(f"wrote {path}"))
    if len(paths) > _MAX_FILES_SHOWN:
        click.echo(f"... and {len(paths) - _MAX_FILES_SHOWN} more files beside them")


def print_found_classes(summary: Mapping[str, Mapping[str, Any]]) -> None:
    """Print, for each class, in how many images it was found and its mean area there, and why others were not found.

    Args:
        summary: as :func:`cliper.batch.merge.summarize` gives it.
    """
    if is_quiet():
        return
    found = {name: values for name, values in summary.items() if values["images"]}
    if found:
        rows = [(name, str(v["images"]), f"{100 * v['mean_area']:.1f} %") for name, v in found.items()]
        print_table(("class", "images", "mean area"), rows, numbers={"images", "mean area"})
    missing = [name for name in summary if name not in found]
    if missing:
        click.echo(printable(f"found in no image: {'; '.join(missing)}"))
    for name in missing[:_MAX_REASONS]:
        click.echo(printable(f"  {name}, at best: {summary[name]['absent']}"))


def print_report(report: Mapping[str, Any]) -> None:
    """Print the results of ``cliper evaluate``; ``report`` is what ``report.json`` holds."""
    if "variants" in report:
        _print_variants(report["variants"])
    else:
        _print_classes(report)
    idle = report["this_run"]["model_idle_share"]
    click.echo(
        f"{report['images']} images of {report['title']}, {report['skipped']} skipped; {report['seconds']:.1f} s; "
        f"in this run the model waited for images {idle:.1%} of the time"
    )
    if not report["complete"]:
        click.echo("this is not the whole benchmark: the number does not compare with published ones")


def format_duration(seconds: float) -> str:
    """Seconds, minutes or hours, such as ``5:20 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d} h" if hours else f"{minutes}:{rest:02d} min"


def _cell(text: str) -> str:
    text = printable(text)
    return text if len(text) <= _MAX_CELL_LENGTH else f"{text[: _MAX_CELL_LENGTH - 3]}..."


def _print_classes(report: Mapping[str, Any]) -> None:
    rows = [(name, _percent(value)) for name, value in report["class_iou"].items()]
    print_table(("class", "IoU"), rows, numbers={"IoU"})
    click.echo(
        f"\nmIoU {_percent(report['miou'])}, pixel accuracy {_percent(report['pixel_accuracy'])}, "
        f"mean accuracy {_percent(report['mean_accuracy'])} (percent)"
    )
    if "vocabulary" in report:
        everything = _percent(report["miou_all"])
        click.echo(f"vocabulary {report['vocabulary']}; mIoU over all classes, also those only predicted: {everything}")
    published = report["published"]
    if published:
        click.echo(_compare_with_published(published))


def _compare_with_published(published: Mapping[str, Any]) -> str:
    """``published 65.9 (logged 65.930), difference -0.1 (logged -0.13); other than published: size 64``."""
    logged = published["logged_miou_percent"]
    text = f"published {published['miou_percent']:.1f}" + ("" if logged is None else f" (logged {logged:.3f})")
    if published["difference_percent"] is not None:
        text += f", difference {published['difference_percent']:+.1f}"
        text += "" if logged is None else f" (logged {published['logged_difference_percent']:+.2f})"
    if published["changed"]:
        text += f"; other than published: {', '.join(published['changed'])}"
    return text


def _print_variants(variants: Sequence[Mapping[str, Any]]) -> None:
    texts = ["attention", "feature fusion", "refiner"]
    numbers = ["mIoU", "pixel accuracy", "mean accuracy"]
    rows = [_variant_cells(row) for row in variants]
    if "vocabulary" in variants[0]:
        texts = [name for name in texts if len({row[name] for row in rows}) > 1] + ["vocabulary"]
        numbers[1:1] = ["mIoU all"] + (["robust mean", "robust minimum"] if len(texts) > 1 else [])
    print_table([*texts, *numbers], [[row[name] for name in (*texts, *numbers)] for row in rows], numbers=numbers)
    if texts == ["vocabulary"]:
        mean, minimum = rows[0]["robust mean"], rows[0]["robust minimum"]
        click.echo(f"\nrobust mIoU, over {len(rows)} vocabularies: mean {mean}, minimum {minimum} (percent)")


def _variant_cells(row: Mapping[str, Any]) -> dict[str, str]:
    """Texts by heading."""
    settings, robust = row["settings"], row.get("robust_miou", {})
    return {
        "attention": settings["attention"],
        "feature fusion": "on" if settings["fuse_features"] else "off",
        "refiner": row["refiner"],
        "vocabulary": row.get("vocabulary", ""),
        "mIoU": _percent(row["miou"]),
        "mIoU all": _percent(row.get("miou_all")),
        "robust mean": _percent(robust.get("mean")),
        "robust minimum": _percent(robust.get("minimum")),
        "pixel accuracy": _percent(row["pixel_accuracy"]),
        "mean accuracy": _percent(row["mean_accuracy"]),
    }


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
