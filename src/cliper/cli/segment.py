"""``cliper segment``: pictures and words in, label maps and overlays out."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cliper.cli.options import (
    class_options,
    load_segmenter,
    model_options,
    read_background,
    read_class_options,
)
from cliper.errors import ImageError, InputError, OutputError, ResourceError

if TYPE_CHECKING:
    from cliper.result import Segmentation
    from cliper.segmenter import Segmenter

__all__ = ["segment"]

_MOST_ROWS = 20


@click.command()
@click.argument("pictures", nargs=-1, type=click.Path(path_type=Path, readable=False))
@class_options
@click.option("--example", is_flag=True, help="Segment the photo that comes with the package.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, file_okay=True),
    default=Path(),
    help="Folder for the results; by default the current one.",
)
@click.option("--overlay/--no-overlay", default=True, help="Whether to write an overlay (default: yes).")
@click.option("--scores", is_flag=True, help="Also write labels, scores and confidence as NAME.npz.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, one line a picture.")
@model_options
def segment(
    pictures: tuple[Path, ...],
    classes: tuple[str, ...],
    classes_file: Path | None,
    background_names: tuple[str, ...],
    example: bool,
    out: Path,
    overlay: bool,
    scores: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Label every pixel of PICTURES with the classes you name.

    For each picture NAME.labels.png (indexed, VOC palette; 0 is background, 1 the first class ...) and
    NAME.overlay.png are written. Pictures that cannot be read are named, the others are done; the exit code is
    then 2.

    \b
    cliper segment photo.jpg -c "dog; grass; wooden bench"
    cliper segment *.jpg -c cat -o results --model ViT-B/16
    cliper segment --example
    """
    if example:
        from cliper.examples import EXAMPLE_CLASSES, example_photo

        pictures = (*pictures, example_photo())
        if not classes and classes_file is None:
            classes = (EXAMPLE_CLASSES,)
    if not pictures:
        raise click.UsageError("expected a picture, got none; name one, or give --example")
    named = read_class_options(classes, classes_file)
    background = read_background(background_names)
    _check_names(pictures, out)
    _check_folder(out)
    if not any(picture.exists() for picture in pictures):
        from cliper.images import load_image

        load_image(pictures[0])  # says what is wrong before anything large is fetched or loaded
    segmenter = load_segmenter(options)
    segmenter.encode_text(named)  # a class that cannot be read is no picture's fault
    if not as_json:
        _say_model(segmenter)
    failed = 0
    for picture in pictures:
        started = time.perf_counter()
        try:
            result = segmenter(picture, named, background=background)
        except (ImageError, ResourceError) as error:
            failed += 1
            click.echo(f"cliper: error: {error}", err=True)
            continue
        files = _write(result, out / picture.stem, overlay, scores)
        _show(result, picture, files, time.perf_counter() - started, as_json)
    return 2 if failed else 0


def _check_names(pictures: Sequence[Path], out: Path) -> None:
    results = {(out / f"{p.stem}{end}").resolve() for p in pictures for end in (".labels.png", ".overlay.png", ".npz")}
    for picture in pictures:
        if picture.resolve() in results:
            raise InputError(f"{picture} would be overwritten by a result of this run; give another folder with --out")
    first: dict[str, Path] = {}
    for picture in pictures:
        other = first.setdefault(picture.stem, picture)
        if other is not picture:
            raise InputError(
                f"{other} and {picture} would both be written to {picture.stem}.labels.png; "
                f"segment them one by one with different --out folders"
            )


def _check_folder(out: Path) -> None:
    """Whether results can be written, before anything is computed."""
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"expected a folder that can be written, got {out}; choose another with --out")


def _write(result: Segmentation, stem: Path, overlay: bool, scores: bool) -> list[Path]:
    files = [result.save(stem.with_name(f"{stem.name}.labels.png"))]
    if overlay:
        files.append(result.save_overlay(stem.with_name(f"{stem.name}.overlay.png")))
    if scores:
        files.append(result.save(stem.with_name(f"{stem.name}.npz")))
    return files


def _say_model(segmenter: Segmenter) -> None:
    entry = segmenter.checkpoint.entry
    title = segmenter.checkpoint.name if entry is None else entry.title
    click.echo(f"model: {title}" + (f". {entry.note}" if entry is not None and entry.note else ""))


def _show(result: Segmentation, picture: Path, files: list[Path], seconds: float, as_json: bool) -> None:
    areas = result.areas
    if as_json:
        summary = {
            "input": str(picture),
            "outputs": [str(file) for file in files],
            "model": result.model,
            "refiner": result.refiner,
            "seconds": round(seconds, 3),
            "areas": areas,
            "confidence": {n: float(c) for n, c in zip(result.classes, result.confidence, strict=True)},
        }
        click.echo(json.dumps(summary, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class", overflow="ellipsis", max_width=48)
    table.add_column("area", justify="right")
    table.add_column("confidence", justify="right")
    table.add_column("")
    rows = sorted(zip(result.classes, result.confidence, strict=True), key=lambda row: (-areas[row[0]], -row[1]))
    for name, confidence in rows[:_MOST_ROWS]:
        off = "" if confidence > result.settings.score else f"off: not above {result.settings.score:g}"
        table.add_row(_plain(name), f"{areas[name]:.1%}", f"{confidence:.2f}", off)
    table.add_row("background", f"{max(0.0, 1 - sum(areas.values())):.1%}", "", "")
    click.echo(f"\n{picture}  {result.image.width}x{result.image.height}, {seconds:.2f} s")
    Console(highlight=False, soft_wrap=True).print(table)
    if len(rows) > _MOST_ROWS:
        click.echo(f"... and {len(rows) - _MOST_ROWS} classes more (--json has them all)")
    if not any(areas.values()):
        click.echo(
            f"nothing was found: no class is above score {result.settings.score:g} and background "
            f"{result.settings.background:g} anywhere; lower --score and --background-threshold to see more"
        )
    for file in files:
        click.echo(f"wrote {file}")


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape("".join(c if c.isprintable() else " " for c in text))
