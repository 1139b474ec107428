"""``cliper data``: the benchmarks' data sets: what there is, what is here, making the masks that are not published."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from cliper.benchmarks.prepare import Plan
    from cliper.benchmarks.verify import DataReport

__all__ = ["data"]

T = TypeVar("T")

_MOST_LINES = 10

root_argument = click.argument("root", type=click.Path(path_type=Path))


@click.group()
def data() -> None:
    """The benchmarks' data sets: list, verify, prepare.

    ROOT is the folder that holds them all; docs/benchmarks.md has its layout.
    """


@data.command("list")
def list_data() -> None:
    """Known benchmarks: classes, pictures, what is not counted, and what prepares them."""
    from rich.console import Console
    from rich.table import Table

    from cliper.benchmarks import benchmark_names, find_benchmark

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "what", "classes", "samples", "background", "prepared by"):
        table.add_column(heading, justify="right" if heading in {"classes", "samples"} else "left")
    for name in benchmark_names():
        benchmark = find_benchmark(name)
        sizes = " or ".join(f"{size:,}" for size in (benchmark.size, *benchmark.also_sizes))
        background = "not counted" if 0 in benchmark.ignore else "counted"
        made_by = _PREPARED_BY.get(name, "")
        table.add_row(name, benchmark.title, str(len(benchmark.class_names)), sizes, background, made_by)
    # A table squeezed into a pipe's 80 columns can neither be read nor searched.
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table)


@data.command()
@root_argument
@click.argument("names", nargs=-1)
@click.option("--deep", is_flag=True, help="Decode every picture and mask and check every label; slow.")
def verify(root: Path, names: tuple[str, ...], deep: bool) -> int:
    """Say what of the benchmarks NAMES (default: all) is in ROOT, what is missing or unreadable, and how many.

    Exit code 2 if one that is there is not whole, or one that was named is not there.
    """
    from cliper.benchmarks import benchmark_names
    from cliper.benchmarks.verify import verify_data

    reports = []
    for report in verify_data(root, names or benchmark_names(), deep=deep, track=_track):
        _show_report(report)
        reports.append(report)
    wanted = [report for report in reports if names or not report.absent]
    return 0 if wanted and all(report.whole for report in wanted) else 2


def _show_report(report: DataReport) -> None:
    name = report.benchmark.name
    if report.absent:
        click.echo(f"{name}: not here; {report.absent.partition(': ')[2]}")
        return
    problems = [f"expected a file, got nothing there: {path!r}" for path in report.missing] + list(report.unreadable)
    for line in problems[:_MOST_LINES]:
        click.echo(f"cliper: error: {name}: {line}", err=True)
    if len(problems) > _MOST_LINES:
        click.echo(f"cliper: error: {name}: and {len(problems) - _MOST_LINES:,} more", err=True)
    sizes = " or ".join(f"{size:,}" for size in report.expected)
    verdict = "whole" if report.whole else "not whole"
    counts = f"{report.found:,} samples, expected {sizes}"
    if problems:
        counts += f"; {len(report.missing):,} files missing, {len(report.unreadable):,} unreadable"
    click.echo(f"{name}: {verdict}; {counts}")


@data.group()
def prepare() -> None:
    """Make masks that a data set's own downloads do not hold.

    What is there already is left as it is; a command that was interrupted goes on where it was. Exit code 1 if a
    mask could not be made.
    """


@prepare.command("voc-aug")
@root_argument
@click.option(
    "--sbd",
    type=click.Path(path_type=Path),
    help="SBD's folder, with dataset/cls/*.mat; without it only VOC's own masks are taken, enough for voc21 and voc20.",
)
def voc_aug(root: Path, sbd: Path | None) -> int:
    """VOC's SegmentationClassAug, from its SegmentationClass and SBD."""
    from cliper.benchmarks.prepare import voc_aug_masks

    return _carry_out(voc_aug_masks(root, sbd))


@prepare.command()
@root_argument
@click.option(
    "--annotations",
    type=click.Path(path_type=Path),
    help="trainval_merged.json, or the folder of .mat files; by default one of both in VOCdevkit/VOC2010.",
)
def context(root: Path, annotations: Path | None) -> int:
    """PASCAL-Context's 59 classes, from its annotations in either form."""
    from cliper.benchmarks.prepare import context_masks

    return _carry_out(context_masks(root, annotations))


@prepare.command("coco-object")
@root_argument
@click.option(
    "--instances",
    type=click.Path(path_type=Path),
    help="instances_val2017.json; by default in annotations, in ROOT, coco2014 or coco2017.",
)
def coco_object(root: Path, instances: Path | None) -> int:
    """COCO-Object's masks, from COCO's instances."""
    from cliper.benchmarks.prepare import coco_object_masks

    return _carry_out(coco_object_masks(root, instances))


@prepare.command("coco-stuff")
@root_argument
@click.option(
    "--maps",
    type=click.Path(path_type=Path),
    help="stuffthingmaps_trainval2017, or its val2017; by default in ROOT or coco2017.",
)
def coco_stuff(root: Path, maps: Path | None) -> int:
    """COCO-Stuff's 171 classes with contiguous numbers, from its maps."""
    from cliper.benchmarks.prepare import coco_stuff_masks

    return _carry_out(coco_stuff_masks(root, maps))


@prepare.command()
@root_argument
def cityscapes(root: Path) -> int:
    """Cityscapes' labelTrainIds, from labelIds or polygons."""
    from cliper.benchmarks.prepare import cityscapes_masks

    return _carry_out(cityscapes_masks(root))


_PREPARED_BY = {
    "voc21": "voc-aug (only for SBD's masks)",
    "voc20": "voc-aug (only for SBD's masks)",
    "context60": "context",
    "context59": "context",
    "coco-object": "coco-object",
    "coco-stuff171": "coco-stuff",
    "cityscapes": "cityscapes",
}


def _carry_out(plan: Plan) -> int:
    from cliper.benchmarks.prepare import carry_out

    outcome = carry_out(plan, _track)
    for line in outcome.failed[:_MOST_LINES]:
        click.echo(f"cliper: error: {line}", err=True)
    if len(outcome.failed) > _MOST_LINES:
        click.echo(f"cliper: error: and {len(outcome.failed) - _MOST_LINES:,} more", err=True)
    failed = f", {len(outcome.failed):,} failed" if outcome.failed else ""
    click.echo(f"{plan.folder}: {outcome.written:,} masks written, {outcome.kept:,} there already{failed}")
    return 1 if outcome.failed else 0


def _track(items: Sequence[T], what: str) -> Iterator[T]:
    """The items, with a bar on standard error where a person looks at it."""
    from rich.console import Console
    from rich.progress import track

    yield from track(
        items, what, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty(), total=len(items)
    )
