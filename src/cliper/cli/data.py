"""``cliper data``: list, verify and prepare the benchmarks' data sets."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from cliper.cli.completion import complete_benchmarks
from cliper.cli.errors import ExitCode, echo_error, is_quiet
from cliper.cli.help import CommandGroup
from cliper.cli.options import message_options
from cliper.cli.tables import print_table

if TYPE_CHECKING:
    from cliper.datasets.verify import DataReport

__all__ = ["data"]

T = TypeVar("T")

_MAX_ERRORS_SHOWN = 10

# Benchmark -> the command of ``cliper data prepare`` that makes its masks.
_PREPARED_BY = {
    "voc21": "voc-aug (only for SBD's masks)",
    "voc20": "voc-aug (only for SBD's masks)",
    "context60": "context",
    "context59": "context",
    "coco-object": "coco-object",
    "coco-stuff171": "coco-stuff",
    "cityscapes": "cityscapes",
}

_root_argument = click.argument("root", type=click.Path(path_type=Path))


@click.group(
    cls=CommandGroup,
    epilog="cliper data list\ncliper data verify ROOT voc21\ncliper data prepare coco-object ROOT",
)
def data() -> None:
    """List, verify and prepare the benchmarks' data sets.

    ROOT is the folder of all data sets; docs/datasets.md describes its layout.
    """


@data.command("list", epilog="cliper data list")
def list_data() -> None:
    """List the known benchmarks.

    The last column is the command of cliper data prepare that makes the masks which the download does not contain.
    """
    from cliper.datasets import benchmark_names, find_benchmark

    rows = []
    for name in benchmark_names():
        benchmark = find_benchmark(name)
        images = " or ".join(f"{size:,}" for size in benchmark.accepted_sizes)
        background = "not counted" if 0 in benchmark.ignore else "counted"
        classes = str(len(benchmark.class_names))
        rows.append((name, benchmark.title, classes, images, background, _PREPARED_BY.get(name, "")))
    numbers = ("classes", "samples")
    print_table(("name", "data set", *numbers, "background", "prepared by"), rows, numbers=numbers)


@data.command("verify", epilog="cliper data verify ROOT\ncliper data verify ROOT voc21 ade150 --full")
@_root_argument
@click.argument("names", nargs=-1, shell_complete=complete_benchmarks)
@click.option("--full", is_flag=True, help="Decode every image and mask and check every label. Slow.")
@message_options
def verify_benchmarks(root: Path, names: tuple[str, ...], full: bool) -> int:
    """Check whether the benchmarks NAMES in ROOT are complete.

    Without NAMES all benchmarks are checked. The exit code is 1 if images or masks are missing or unreadable, and 2 if
    a named benchmark, or every benchmark, is not in ROOT.
    """
    from cliper.datasets import benchmark_names
    from cliper.datasets.verify import verify_data

    reports = []
    for report in verify_data(root, names or benchmark_names(), full=full, progress=_progress):
        _print_report(report)
        reports.append(report)
    absent = [report for report in reports if report.absent]
    if absent and (names or len(absent) == len(reports)):
        return ExitCode.BAD_INPUT
    complete = all(report.complete for report in reports if not report.absent)
    return ExitCode.DONE if complete else ExitCode.IMAGES_FAILED


def _print_report(report: DataReport) -> None:
    name = report.benchmark.name
    if report.absent:
        if not is_quiet():
            click.echo(f"{name}: missing; {report.absent.partition(': ')[2]}")
        return
    problems = [f"expected a file, got nothing there: {path!r}" for path in report.missing] + list(report.unreadable)
    _echo_errors([f"{name}: {problem}" for problem in problems])
    sizes = " or ".join(f"{size:,}" for size in report.benchmark.accepted_sizes)
    verdict = "complete" if report.complete else "incomplete"
    counts = f"{report.valid:,} valid samples, expected {sizes}"
    if problems:
        counts += f"; {len(report.missing):,} files missing, {len(report.unreadable):,} unreadable"
    if not is_quiet():
        click.echo(f"{name}: {verdict}; {counts}")


@data.group(epilog="cliper data prepare voc-aug ROOT --sbd benchmark_RELEASE\ncliper data prepare coco-object ROOT")
def prepare() -> None:
    """Make the masks that a data set's download does not contain.

    Existing masks are skipped, so that an interrupted command can be run again. The exit code is
    1 if some masks could not be made.
    """


def _add_prepare_command(name: str, description: str, option: str = "", text: str = "", default: str = "") -> None:
    """Add the command for ``NAME_masks`` of :mod:`cliper.datasets.prepare`, with an option for another source."""

    @_root_argument
    @message_options
    def command(root: Path, **source: Path | None) -> int:
        from cliper.datasets import prepare as plans

        plan = getattr(plans, f"{name.replace('-', '_')}_masks")(root, *source.values())
        summary = plans.write_masks(plan, _progress)
        _echo_errors(summary.errors)
        failed = f", {len(summary.errors):,} failed" if summary.errors else ""
        if not is_quiet():
            click.echo(f"{plan.folder}: {summary.written:,} masks written, {summary.skipped:,} skipped{failed}")
        return ExitCode.IMAGES_FAILED if summary.errors else ExitCode.DONE

    example = f"cliper data prepare {name} ROOT"
    if option:
        command = click.option(option, type=click.Path(path_type=Path), show_default=default, help=text)(command)
        example += f"\n{example} {option} PATH"
    prepare.command(name, help=description, epilog=example)(command)


_add_prepare_command(
    "voc-aug",
    "Make VOC's SegmentationClassAug from VOC and SBD.",
    "--sbd",
    "SBD's folder, with dataset/cls/*.mat.",
    "VOC's own masks only, enough for voc21 and voc20",
)
_add_prepare_command(
    "context",
    "Make PASCAL-Context's masks of 59 classes.",
    "--annotations",
    "The file trainval_merged.json, or the folder of .mat files.",
    "one of both in VOCdevkit/VOC2010",
)
_add_prepare_command(
    "coco-object",
    "Make COCO-Object's masks from COCO's instances.",
    "--instances",
    "COCO's instances_val2017.json.",
    "in annotations, in ROOT, coco2014 or coco2017",
)
_add_prepare_command(
    "coco-stuff",
    "Make COCO-Stuff's masks of 171 classes from its maps.",
    "--maps",
    "The folder stuffthingmaps_trainval2017, or its val2017.",
    "in ROOT or coco2017",
)
_add_prepare_command("cityscapes", "Make Cityscapes' labelTrainIds from labelIds or polygons.")


def _echo_errors(errors: Sequence[str]) -> None:
    for error in errors[:_MAX_ERRORS_SHOWN]:
        echo_error(error)
    if len(errors) > _MAX_ERRORS_SHOWN:
        echo_error(f"{len(errors) - _MAX_ERRORS_SHOWN:,} more")


def _progress(items: Sequence[T], title: str) -> Iterator[T]:
    """The items, with a progress bar if standard error is a terminal."""
    from rich.console import Console
    from rich.progress import track

    hidden = is_quiet() or not sys.stderr.isatty()
    yield from track(items, title, console=Console(stderr=True), transient=True, disable=hidden, total=len(items))
