"""``cliper segment``: images and words in, label maps and overlays out."""

from __future__ import annotations

import difflib
import itertools
import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cliper.cli.completion import complete
from cliper.cli.errors import ExitCode, echo_error, echo_status, echo_warning, is_quiet, printable
from cliper.cli.help import GroupedCommand, option, option_group
from cliper.cli.options import (
    check_out_folder,
    class_options,
    echo_notes,
    label_mode_option,
    load_segmenter,
    message_options,
    model_options,
    read_background,
    read_class_options,
)
from cliper.cli.raster import check_raster_out, read_tiling, require_packages, segment_to_file, tile_options
from cliper.cli.results import Summary
from cliper.cli.tables import print_model
from cliper.errors import ImageError, ImageSizeError, InputError, ResourceError

if TYPE_CHECKING:
    from cliper.prompts import ClassPrompt
    from cliper.raster import Tiling
    from cliper.result import Segmentation
    from cliper.segmenter import Segmenter

__all__ = ["segment"]

MAX_INPUT_BYTES = 1024**3  # of standard input

_LOG = logging.getLogger("cliper.segment")
_STREAM = Path("-")
_CLASS_LIST = "classes.txt"

_EXAMPLES = """\
cliper segment photo.jpg -c "dog; cat; person: man, woman"
cliper segment *.jpg -c car --background "road; sky" -o results
cliper segment photo.jpg -c dog --refiner self --score-threshold 0.4
cliper segment - -c dog -o - < photo.jpg > labels.png
cliper segment aerial.tif -c car --tile 1024 -o labels.tif
cliper segment --example"""

# Formats of one file for each image, without files about a whole run.
_FILE_FORMATS = ("labels", "overlay", "overlay-jpg", "overlay-webp", "masks", "cutouts", "npz")

Write = Callable[["Segmentation", Path], list[Path]]


@click.command(cls=GroupedCommand, epilog=_EXAMPLES)
@click.argument("images", nargs=-1, type=click.Path(path_type=Path, readable=False))
@option_group(
    "Input and output",
    option("--example", "Segment the photo that comes with the package."),
    option(
        "-o, --out FOLDER|FILE",
        "Folder for results, and for classes.txt, the list of labels. For one image also a file such as labels.png, - "
        "for standard output, or of a raster in tiles labels.tif (GeoTIFF) or regions.gpkg (polygons).",
        type=click.Path(path_type=Path, allow_dash=True),
        show_default="the current folder, without classes.txt",
    ),
    option(
        "-f, --format NAME",
        f"Format of the results; repeat for more: {', '.join(_FILE_FORMATS)}.",
        "formats",
        multiple=True,
        show_default="labels and overlay; of a file, labels",
        shell_complete=complete(_FILE_FORMATS),
    ),
    option("--overlay/--no-overlay", "Write NAME.overlay.png, unless --format is given.", default=True),
    option("--scores", "Write labels, scores and confidence as NAME.npz, too."),
    label_mode_option,
    option("--json", "Print the summary as JSON, one line per image.", "json_output"),
)
@tile_options
@class_options
@model_options
@message_options
def segment(
    images: tuple[Path, ...],
    classes: tuple[str, ...],
    classes_file: Path | None,
    background_names: tuple[str, ...],
    example: bool,
    out: Path | None,
    formats: tuple[str, ...],
    overlay: bool,
    scores: bool,
    label_mode: str,
    json_output: bool,
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
    if address := next((image for image in images if str(image).startswith(("http:/", "https:/"))), None):
        raise click.UsageError(f"expected files, got an address of {address.name}; download it first")
    if unknown := next((name for name in formats if name not in _FILE_FORMATS), None):
        near = difflib.get_close_matches(unknown, _FILE_FORMATS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "cliper batch writes others"
        raise InputError(f"--format: expected one of {', '.join(_FILE_FORMATS)}, got {unknown!r}; {hint}")
    class_list = read_class_options(classes, classes_file, options["settings"])
    background = read_background(background_names, options["settings"])
    stdin = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1) if _STREAM in images else b""
    if len(stdin) > MAX_INPUT_BYTES:
        raise InputError(f"standard input: expected an image of at most {MAX_INPUT_BYTES // 2**20} MiB, got more")
    if not any(image.is_file() or image == _STREAM for image in images):
        from cliper.images import load_image

        load_image(images[0])  # raises before anything is downloaded or loaded
    silent = is_quiet() or out == _STREAM
    if not silent:
        echo_status(f"loading {options['model']} ...")  # before torch and Pillow are imported, which takes a second
    from cliper.raster import RASTER_SUFFIXES

    tiling, bands = read_tiling(options)
    class_file: Path | None = None
    write: Write | None = None  # None for a raster from file to file
    in_folder = False
    if out is not None and out.suffix.lower() in RASTER_SUFFIXES and not out.is_dir():
        check_raster_out(out, images, (*formats, *(["npz"] * scores)))
    elif bands:
        raise InputError("--bands: it is for rasters that are written as .tif or .gpkg; name such a file with --out")
    elif out is not None and (out == _STREAM or (out.suffix and not out.is_dir())):
        if scores:
            raise InputError(f"--scores: expected a folder, got {out}; name one with --out, or give --format npz")
        write = _single_writer(out, formats or ("labels",), images, label_mode)
    else:
        formats = formats or ("labels", *(["overlay"] * overlay))
        formats = tuple(dict.fromkeys((*formats, *(["npz"] * scores))))
        in_folder = True
        write = _folder_writer(out or Path(), formats, images, label_mode)
        if out is not None and "labels" in formats and _may_write_list(out / _CLASS_LIST):
            class_file = out / _CLASS_LIST
    segmenter = load_segmenter(options)
    segmenter.encode_text(class_list)  # a class that cannot be encoded is an error of the command, not of an image
    echo_notes(segmenter.checkpoint, class_list, segmenter.encoder)
    if not json_output and not silent:
        print_model(segmenter.checkpoint, options["refiner"])

    def process(image: Path) -> tuple[Summary, list[Path]]:
        raster_out = out if write is None else None
        if write is not None:
            try:
                content = stdin if image == _STREAM else image
                result = _segment(segmenter, content, class_list, background, tiling if options["tile"] else None)
                return Summary.of_result(result), write(result, Path("stdin" if image == _STREAM else image.stem))
            except ImageSizeError as error:
                if image == _STREAM or not in_folder:
                    raise
                raster_out = _raster_path(out or Path(), image)
                require_packages(raster_out, error)
                echo_warning(f"{error}; segmenting it in tiles into {raster_out}, without other formats")
        assert raster_out is not None
        raster = segment_to_file(segmenter, image, raster_out, class_list, background, tiling, bands)
        return Summary.of_raster(raster, segmenter), [raster_out]

    failed = 0
    for image in images:
        started = time.perf_counter()
        try:
            found, files = process(image)
        except (ImageError, ResourceError) as error:
            failed += 1
            echo_error(str(error))
            continue
        seconds = time.perf_counter() - started
        if json_output and out != _STREAM:
            found.print_json(segmenter, image, files, seconds)
        elif not silent:
            found.print_table(image, files, seconds)
    if class_file is not None and failed < len(images):
        from cliper.formats import FormatOptions, find_format

        merge = find_format("labels").merge
        assert merge is not None
        merge((), class_file.parent, [item.name for item in class_list], FormatOptions())
        if not json_output and not silent:
            click.echo(printable(f"wrote {class_file}"))
    return ExitCode.IMAGES_FAILED if failed else ExitCode.DONE


def _segment(
    segmenter: Segmenter,
    image: Path | bytes,
    classes: list[ClassPrompt],
    background: str | list[ClassPrompt] | None,
    tiling: Tiling | None,
) -> Segmentation:
    """Segment an image, and log the seconds of each step."""
    from cliper.images import load_image

    times = [time.perf_counter()]
    loaded = load_image(image)
    if tiling is not None:
        from cliper.raster import segment_tiled

        return segment_tiled(segmenter, loaded, classes, background, tiling)
    times.append(time.perf_counter())
    encoded = segmenter.encode_image(loaded)
    times.append(time.perf_counter())
    result = segmenter(encoded, classes, background=background)
    times.append(time.perf_counter())
    read, networks, labels = (end - start for start, end in itertools.pairwise(times))
    name = "standard input" if isinstance(image, bytes) else image
    _LOG.info("%s: read in %.2f s, networks %.2f s, class maps and labels %.2f s", name, read, networks, labels)
    return result


def _single_writer(out: Path, formats: Sequence[str], images: Sequence[Path], label_mode: str) -> Write:
    """Writes the result of one image to the file, or standard output, that --out names."""
    if len(images) > 1:
        raise InputError(f"--out: expected a folder for {len(images)} images, got {out}")
    if len(formats) > 1:
        raise InputError(f"--out: expected a folder for {len(formats)} formats, got {out}")
    if formats == ("labels",) and out != _STREAM and out.suffix.lower() != ".png":
        raise InputError(f"--out: labels are written as PNG, got {out}; name it .png, or give --format overlay")
    if formats[0] not in ("labels", "overlay") and out != _STREAM:
        from cliper.formats import find_format

        suffix = Path(f"x{find_format(formats[0]).suffix}").suffix
        if out.suffix.lower() != suffix:
            raise InputError(f"--out: {formats[0]} is written as {suffix[1:]}, got {out}; name it {suffix}")
    if out != _STREAM:
        check_out_folder(out.parent)
        if any(image.resolve() == out.resolve() for image in images):
            raise InputError(f"{out} is the image itself; give another name with --out")

    def write(result: Segmentation, name: Path) -> list[Path]:
        from cliper.formats import FormatOptions, ImageInfo, find_format
        from cliper.formats.archive import pack_results

        format, options = find_format(formats[0]), FormatOptions(label_mode=label_mode)
        if out != _STREAM:
            format.write(result, out, ImageInfo(str(name), *result.image.size), options)
            return [out]
        content, _, _ = pack_results(format, [("image", result)], result.classes, options)
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return []

    return write


def _folder_writer(out: Path, formats: Sequence[str], images: Sequence[Path], label_mode: str) -> Write:
    """Writes the results of an image into a folder, in several formats."""
    from cliper.formats import FormatOptions, ImageInfo, find_formats

    found, options = find_formats(formats), FormatOptions(label_mode=label_mode)
    outputs = {(out / format.file_name(image.stem)).resolve() for image in images for format in found}
    outputs |= {_raster_path(out, image).resolve() for image in images}  # of an image above the pixel limit
    first: dict[str, Path] = {}
    for image in images:
        if image.resolve() in outputs:
            raise InputError(f"{image} would be overwritten by a result of this run; give another folder with --out")
        other = first.setdefault(image.stem, image)
        if other is not image:
            raise InputError(
                f"{other} and {image} would both be written to {found[0].file_name(image.stem)}; "
                f"segment them one by one with different --out folders"
            )
    check_out_folder(out)

    def write(result: Segmentation, name: Path) -> list[Path]:
        files = []
        for format in found:
            files.append(out / format.file_name(str(name)))
            format.write(result, files[-1], ImageInfo(str(name), *result.image.size), options)
        return files

    return write


def _raster_path(folder: Path, image: Path) -> Path:
    """The label map of an image above the pixel limit."""
    return folder / f"{image.stem}.labels.tif"


def _may_write_list(path: Path) -> bool:
    """Whether there is no other file than an earlier list of labels, such as the one that --classes-file names."""
    if not path.exists():
        return True
    with path.open("rb") as stream:
        if stream.read(13) == b"0 background\n":
            return True
    echo_warning(f"{path} is not a list of labels and stays as it is; label maps have the names of classes, too")
    return False
