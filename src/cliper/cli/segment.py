"""``cliper segment``: images and words in, label maps and overlays out."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cliper.cli.errors import ExitCode, echo_error, echo_status, printable
from cliper.cli.help import GroupedCommand, option, option_group
from cliper.cli.options import (
    check_out_folder,
    class_options,
    echo_notes,
    load_segmenter,
    model_options,
    read_background,
    read_class_options,
)
from cliper.cli.tables import print_table
from cliper.errors import ImageError, InputError, ResourceError

if TYPE_CHECKING:
    from cliper.result import Segmentation
    from cliper.segmenter import Segmenter

__all__ = ["segment"]

MAX_INPUT_BYTES = 1024**3  # of standard input

_STREAM = Path("-")
_MAX_ROWS = 20
_SUFFIXES = (".labels.png", ".overlay.png", ".npz")

_EXAMPLES = """\
cliper segment photo.jpg -c "dog; cat; person: man, woman"
cliper segment *.jpg -c car --background "road; sky" -o results
cliper segment photo.jpg -c dog --refiner self --score-threshold 0.4
cliper segment - -c dog -o - < photo.jpg > labels.png
cliper segment --example"""

# Formats of one file for each image, without files about a whole run.
_FILE_FORMATS = ("labels", "overlay", "npz", "masks", "cutouts")


@click.command(cls=GroupedCommand, epilog=_EXAMPLES)
@click.argument("images", nargs=-1, type=click.Path(path_type=Path, readable=False))
@option_group(
    "Input and output",
    option("--example", "Segment the photo that comes with the package."),
    option(
        "-o, --out FOLDER|FILE",
        "Folder for results. For one image also a file such as labels.png, or - for standard output.",
        type=click.Path(path_type=Path, allow_dash=True),
        default=Path(),
    ),
    option("-f, --format NAME", f"Format of --out FILE: {', '.join(_FILE_FORMATS)}.", "file_format", default="labels"),
    option("--overlay/--no-overlay", "Write NAME.overlay.png.", default=True),
    option("--scores", "Write labels, scores and confidence as NAME.npz, too."),
    option("-q, --quiet", "Print errors only."),
    option("--json", "Print the summary as JSON, one line per image.", "json_output"),
)
@class_options
@model_options
def segment(
    images: tuple[Path, ...],
    classes: tuple[str, ...],
    classes_file: Path | None,
    background_names: tuple[str, ...],
    example: bool,
    out: Path,
    overlay: bool,
    scores: bool,
    json_output: bool,
    quiet: bool,
    file_format: str,
    **options: Any,
) -> int:
    """Label every pixel of IMAGES with the classes you name.

    An image called - is read from standard input.

    For each image NAME.labels.png (indexed, with VOC's palette: 0 is background, 1 the first class, ...) and
    NAME.overlay.png are written. An image that cannot be used is reported and the others are done; the exit code is
    then 1. For folders and for other formats use cliper batch.
    """
    if example:
        from cliper.examples import EXAMPLE_CLASSES, example_photo

        images = (*images, example_photo())
        if not classes and classes_file is None:
            classes = (EXAMPLE_CLASSES,)
    if not images:
        raise click.UsageError("expected an image, got none; name one, or give --example")
    if folder := next((image for image in images if image.is_dir()), None):
        raise click.UsageError(f"expected images, got the folder {folder}; cliper batch segments folders")
    single = _writer(out, file_format, images)
    class_list = read_class_options(classes, classes_file, options["settings"])
    background = read_background(background_names, options["settings"])
    if single is None:
        _check_names(images, out)
        check_out_folder(out)
    stdin = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1) if _STREAM in images else b""
    if len(stdin) > MAX_INPUT_BYTES:
        raise InputError(f"standard input: expected an image of at most {MAX_INPUT_BYTES // 2**20} MiB, got more")
    if not any(image.is_file() or image == _STREAM for image in images):
        from cliper.images import load_image

        load_image(images[0])  # raises before anything is downloaded or loaded
    silent = quiet or out == _STREAM
    if not silent:
        echo_status(f"loading {options['model']} ...")  # before torch is imported, which takes a second
    segmenter = load_segmenter(options)
    segmenter.encode_text(class_list)  # a class that cannot be encoded is an error of the command, not of an image
    echo_notes(segmenter, class_list)
    if not json_output and not silent:
        _print_model(segmenter)
    failed = 0
    for image in images:
        started = time.perf_counter()
        try:
            result = segmenter(stdin if image == _STREAM else image, class_list, background=background)
        except (ImageError, ResourceError) as error:
            failed += 1
            echo_error(str(error))
            continue
        name = Path("stdin" if image == _STREAM else image.stem)
        files = single(result, name) if single else _write(result, out / name, overlay, scores)
        seconds = time.perf_counter() - started
        if json_output and out != _STREAM:
            _print_json(result, image, files, seconds)
        elif not silent:
            _print_result(result, image, files, seconds)
    return ExitCode.IMAGES_FAILED if failed else ExitCode.DONE


def _writer(out: Path, file_format: str, images: Sequence[Path]) -> Callable[[Segmentation, Path], list[Path]] | None:
    """Writes the result of one image to the file, or standard output, that --out names; None if that is a folder."""
    if out != _STREAM and (out.is_dir() or not out.suffix):
        return None
    if file_format not in _FILE_FORMATS:
        raise InputError(f"--format: expected one of {', '.join(_FILE_FORMATS)}, got {file_format!r}")
    if file_format == "labels" and out != _STREAM and out.suffix.lower() != ".png":
        raise InputError(f"--out: labels are written as PNG, got {out}; name it .png, or give --format overlay")
    if len(images) > 1:
        raise InputError(f"--out: expected a folder for {len(images)} images, got {out}")
    if out != _STREAM:
        check_out_folder(out.parent)
        if any(image.resolve() == out.resolve() for image in images):
            raise InputError(f"{out} is the image itself; give another name with --out")

    def write(result: Segmentation, name: Path) -> list[Path]:
        from cliper.formats import FormatOptions, ImageInfo, find_format
        from cliper.formats.archive import pack_results

        format, options = find_format(file_format), FormatOptions()
        if out != _STREAM:
            format.write(result, out, ImageInfo(str(name), *result.image.size), options)
            return [out]
        content, _, _ = pack_results(format, [("image", result)], result.classes, options)
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return []

    return write


def _check_names(images: Sequence[Path], out: Path) -> None:
    outputs = {(out / f"{image.stem}{suffix}").resolve() for image in images for suffix in _SUFFIXES}
    first: dict[str, Path] = {}
    for image in images:
        if image.resolve() in outputs:
            raise InputError(f"{image} would be overwritten by a result of this run; give another folder with --out")
        other = first.setdefault(image.stem, image)
        if other is not image:
            raise InputError(
                f"{other} and {image} would both be written to {image.stem}.labels.png; "
                f"segment them one by one with different --out folders"
            )


def _write(result: Segmentation, stem: Path, overlay: bool, scores: bool) -> list[Path]:
    labels_png, overlay_png, npz = (stem.with_name(f"{stem.name}{suffix}") for suffix in _SUFFIXES)
    files = [result.save(labels_png)]
    if overlay:
        files.append(result.save_overlay(overlay_png))
    if scores:
        files.append(result.save(npz))
    return files


def _print_model(segmenter: Segmenter) -> None:
    entry = segmenter.checkpoint.entry
    title = segmenter.checkpoint.name if entry is None else entry.title
    click.echo(f"model: {title}" + (f". {entry.note}" if entry is not None and entry.note else ""))


def _print_json(result: Segmentation, image: Path, files: list[Path], seconds: float) -> None:
    from cliper.formats.base import bounded_confidence

    summary = {
        "input": str(image),
        "outputs": [str(file) for file in files],
        "model": result.model,
        "refiner": result.refiner,
        "seconds": round(seconds, 3),
        "areas": result.areas,
        "confidence": dict(zip(result.classes, bounded_confidence(result.confidence).tolist(), strict=True)),
        "absent": result.absent,
    }
    click.echo(json.dumps(summary, ensure_ascii=False))


def _print_result(result: Segmentation, image: Path, files: list[Path], seconds: float) -> None:
    from cliper.formats.base import bounded_confidence

    areas, absent = result.areas, result.absent
    confidence = bounded_confidence(result.confidence).tolist()
    classes = sorted(zip(result.classes, confidence, strict=True), key=lambda row: (-areas[row[0]], -row[1]))
    rows = [(name, f"{areas[name]:.1%}", f"{value:.2f}", absent.get(name, "")) for name, value in classes[:_MAX_ROWS]]
    rows.append(("background", f"{max(0.0, 1 - sum(areas.values())):.1%}", "", ""))
    click.echo(f"\n{printable(str(image))}  {result.image.width}x{result.image.height}, {seconds:.2f} s")
    print_table(("class", "area", "confidence", ""), rows, numbers={"area", "confidence"})
    if len(classes) > _MAX_ROWS:
        click.echo(f"... and {len(classes) - _MAX_ROWS} more classes (--json has them all)")
    if len(absent) == len(classes):
        click.echo(
            "nothing was found; --sensitivity 0.7 finds more, and other words may help: see docs/nothing-found.md"
        )
    for file in files:
        click.echo(printable(f"wrote {file}"))
