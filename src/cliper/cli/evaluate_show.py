"""What ``cliper evaluate`` shows: progress with the running mIoU, and the report's tables."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from cliper.benchmarks import Benchmark
    from cliper.evaluation.records import Record

__all__ = ["Progress", "show_report"]

_EVERY = 30.0  # seconds between lines where there is no terminal


class Progress:
    """A bar on a terminal, a line now and then elsewhere; on standard error.

    Args:
        benchmark: what is evaluated.
        label: of the variant whose mIoU is shown.
        total: how many pictures there are.
    """

    def __init__(self, benchmark: Benchmark, label: str, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        from cliper.evaluation import ConfusionMatrix

        self._label, self._total, self._done = label, total, 0
        self._matrix = ConfusionMatrix(benchmark.num_labels, benchmark.ignore)
        self._said = time.monotonic()
        console = Console(stderr=True)
        self._bar = Bar(
            TextColumn(benchmark.name),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("mIoU {task.fields[miou]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(benchmark.name, total=total, miou="-")

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def seen(self, record: Record) -> None:
        """Count a picture."""
        if record.error is not None:
            self._bar.console.print(f"cliper: error: {record.error}", markup=False, highlight=False, soft_wrap=True)
        self._matrix.add_counts(record.counts.get(self._label, []))
        self._done += 1
        miou = f"{100 * self._matrix.miou:.1f}"
        self._bar.update(self._task, advance=1, miou=miou)
        if self._bar.disable and time.monotonic() - self._said > _EVERY:
            self._said = time.monotonic()
            click.echo(f"{self._done} of {self._total} pictures, mIoU {miou}", err=True)


def show_report(report: Mapping[str, Any]) -> None:
    """Print the tables."""
    if "variants" in report:
        _show_variants(report["variants"])
    else:
        _show_classes(report)
    idle = report["this_run"]["model_idle_share"]
    click.echo(
        f"{report['images']} pictures of {report['title']}, {report['skipped']} skipped; {report['seconds']:.1f} s, of "
        f"the last run's time the model waited for pictures {idle:.1%}"
    )
    if not report["complete"]:
        click.echo("this is not the whole benchmark: the number does not compare with published ones")


def _show_classes(report: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class", overflow="ellipsis", max_width=48)
    table.add_column("IoU", justify="right")
    for name, value in report["class_iou"].items():
        table.add_row(name, _percent(value))
    Console(highlight=False, soft_wrap=True, markup=False, file=sys.stdout).print(table)
    click.echo(
        f"\nmIoU {_percent(report['miou'])}, pixel accuracy {_percent(report['pixel_accuracy'])}, "
        f"mean accuracy {_percent(report['mean_accuracy'])} (percent)"
    )
    published = report["published"]
    if published:
        click.echo(_compared(published))


def _compared(published: Mapping[str, Any]) -> str:
    """``published 65.9 (logged 65.930), difference -0.1 (logged -0.13); otherwise than published: size 64``."""
    logged = published["logged_miou_percent"]
    line = f"published {published['miou_percent']:.1f}" + ("" if logged is None else f" (logged {logged:.3f})")
    if published["difference_percent"] is not None:
        line += f", difference {published['difference_percent']:+.1f}"
        line += "" if logged is None else f" (logged {published['logged_difference_percent']:+.2f})"
    if published["changed"]:
        line += f"; otherwise than published: {', '.join(published['changed'])}"
    return line


def _show_variants(variants: Sequence[Mapping[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("attention", "feature fusion", "refiner"):
        table.add_column(name)
    for name in ("mIoU", "pixel accuracy", "mean accuracy"):
        table.add_column(name, justify="right")
    for row in variants:
        settings = row["settings"]
        table.add_row(
            settings["attention"],
            "on" if settings["fuse_features"] else "off",
            row["refiner"],
            *(_percent(row[key]) for key in ("miou", "pixel_accuracy", "mean_accuracy")),
        )
    Console(highlight=False, soft_wrap=True).print(table)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
