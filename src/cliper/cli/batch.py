"""``cliper batch``: any number of images, in the formats that annotation tools read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cliper.cli.completion import complete_formats, complete_path
from cliper.cli.errors import ExitCode, is_quiet
from cliper.cli.help import GroupedCommand, option, option_group
from cliper.cli.options import (
    check_out_folder,
    class_options,
    echo_notes,
    label_mode_option,
    message_options,
    model_options,
    read_background,
    read_class_options,
    read_settings,
)
from cliper.cli.progress import Progress
from cliper.cli.runs import (
    engine_options,
    log_stats,
    make_engine,
    read_model_config,
    read_run_options,
    run_options,
)
from cliper.cli.tables import print_found_classes, print_model, print_summary
from cliper.errors import InputError

if TYPE_CHECKING:
    from cliper.batch.task import SegmentTask
    from cliper.runner.items import Source
    from cliper.runner.run import Run

__all__ = ["batch"]

_EXAMPLES = """\
cliper batch photos -c "dog; cat" -o results
cliper batch photos -c "dog; cat" -o results --resume
cliper batch photos -c "person; car" -o results -f coco -f gallery --min-area 200
cliper batch film.mp4 -c person -o frames --every 10 --smooth 8 --overlay-video
cliper batch s3://bucket/photos -c cat -o s3://bucket/labels --engine ray"""


@click.command(cls=GroupedCommand, epilog=_EXAMPLES)
@click.argument("source", metavar="INPUT", shell_complete=complete_path)
@option_group(
    "Input and output",
    option(
        "--glob PATTERN",
        "Names of the images to segment, such as '*.jpg' or '2024/**/*.png'; repeat for more.",
        multiple=True,
        show_default="all images",
    ),
    option("--every N", "Segment every N-th frame of a video.", show_default="1"),
    option(
        "-o, --out FOLDER", "Folder for results, or an address such as s3://bucket/labels.", type=str, required=True
    ),
    option(
        "-f, --format NAME",
        "Format of the results; repeat for more: labels, overlay, overlay-jpg, overlay-webp, masks, cutouts, npz, "
        "coco, coco-panoptic, cvat, label-studio, labelme, yolo, yolo-semantic, hf-dataset, images, gallery.",
        "formats",
        multiple=True,
        default=["labels", "overlay-jpg"],
        shell_complete=complete_formats,
    ),
    option("--overlay-video", "Write OUT/overlay.mp4, too, if INPUT is a video."),
    option(
        "--smooth FRAMES",
        "Average the class maps of about so many frames of a video where it does not change, against labels that "
        "flicker; 8 is a good value.",
        type=click.IntRange(min=2),
        show_default="off",
    ),
)
@run_options
@class_options
@option_group(
    "Choice of templates",
    option(
        "--choose-templates N",
        "Before the run, keep the text templates whose predictions on the first N images are the surest.",
        type=click.IntRange(min=1),
        show_default="use all templates",
    ),
)
@option_group(
    "Results",
    option(
        "--min-area PIXELS|SHARE",
        "Smallest region, in pixels or as a share of the image such as 0.01%. Smaller ones are merged into the label "
        "around them, in all results.",
        show_default="0.01%, and only left out of coco, cvat, label-studio, labelme and yolo",
    ),
    option("--fill-holes", "Turn background that one class encloses into that class."),
    option("--smooth-borders PIXELS", "Radius for smoothing borders.", type=click.IntRange(min=0), default=0),
    option("--tolerance PIXELS", "Distance of polygons from the borders at most.", type=float, default=1.0),
    label_mode_option,
    option(
        "--ignore-background",
        "Store background as 255, which training ignores, instead of as class 0, in yolo-semantic and hf-dataset.",
    ),
    option("--quality N", "Quality of JPEG and WebP overlays, 1 to 100.", default=90),
)
@model_options
@engine_options
@message_options
def batch(source: str, out: str, **options: Any) -> int:
    """Segment all images of INPUT: a folder, list, tar or video.

    Results are written to OUT under the names and folders of the images. OUT/manifest.jsonl has the state of each
    image. --resume continues a run that was interrupted or killed. An image that cannot be used is reported and the
    others are done; the exit code is then 1.
    """
    from cliper.batch.merge import summarize
    from cliper.checkpoints import resolve
    from cliper.runner.run import run_task
    from cliper.runner.storage import hide_credentials, is_remote, normalize_uri

    if options["smooth"] and max(options["workers"] or 1, options["threads"] or 1) > 1:
        raise click.UsageError(
            "--smooth: frames are processed in their order by one worker; leave out --workers and --threads"
        )
    source, out = normalize_uri(source), normalize_uri(out)
    run_options = read_run_options(options)
    if options["engine"] == "ray" and not is_remote(source):  # workers run in other folders
        source = str(Path(source).absolute())
    images = _open_source(source, out, options)
    if options["engine"] == "ray" and images.is_sequential:
        kind = "video" if images.kind == "video" else "compressed tar"
        advice = "use --engine local, or unpack it first"
        raise InputError(f"--engine ray: a {kind} can only be read from its beginning; {advice}")
    task = _make_task(images, options)
    checkpoint = resolve(task.models.model, "clip")
    print_model(checkpoint, task.models.refiner)
    echo_notes(checkpoint, task.classes)
    if options["choose_templates"]:
        task = _choose_templates(task, images, options["choose_templates"])
    source_config = {
        "input": hide_credentials(_absolute(source)),
        "every": options["every"],
        "glob": options["glob"],
    }
    progress = Progress(images.count)

    def finish(run: Run) -> tuple[list[Path], Mapping[str, Any]]:
        return _write_run_files(run, task, options), summarize(run, task)

    engine = make_engine(task, {**options, "threads": 1} if options["smooth"] else options)
    run, paths = run_task(task, images, out, source_config | task.config(), engine, progress, finish, run_options)
    log_stats(run)
    print_summary(run.counts, paths, progress.seconds)
    print_found_classes(run.summary)
    return ExitCode.IMAGES_FAILED if run.counts.failed else ExitCode.DONE


def _make_task(source: Source, options: dict[str, Any]) -> SegmentTask:
    from cliper.batch.smooth_video import SmoothVideoTask
    from cliper.batch.task import Cleaning, SegmentTask
    from cliper.formats import FormatOptions, find_format
    from cliper.formats.regions import DEFAULT_MIN_AREA
    from cliper.runner.storage import folder_name

    classes = read_class_options(options["classes"], options["classes_file"], options["settings"])
    background = read_background(options["background_names"], options["settings"])
    formats = [find_format(name).name for name in options["formats"]]
    if options["overlay_video"]:
        formats.append("labels")  # the video is drawn from them
    # Label Studio's addresses begin with the name of the images' folder.
    folder = folder_name(source.uri, is_folder=source.kind == "folder")
    arguments = (
        tuple(classes),
        background if background is None or isinstance(background, str) else tuple(background),
        tuple(dict.fromkeys(formats)),
        read_model_config(options, read_settings(options)),
        Cleaning(options["min_area"] or 0, options["fill_holes"], options["smooth_borders"]),
        FormatOptions(
            tolerance=options["tolerance"],
            quality=options["quality"],
            min_area=options["min_area"] or DEFAULT_MIN_AREA,
            label_mode=options["label_mode"],
            image_folder=folder,
            ignore_background=options["ignore_background"],
        ),
    )
    return SmoothVideoTask(*arguments, frames=options["smooth"]) if options["smooth"] else SegmentTask(*arguments)


def _choose_templates(task: SegmentTask, images: Source, count: int) -> SegmentTask:
    from cliper.batch.templates import with_chosen_templates
    from cliper.prompts import load_templates

    all_templates = load_templates(task.models.settings.templates)
    task = with_chosen_templates(task, images, count)
    kept = task.models.settings.templates
    if not is_quiet():
        click.echo(f"templates: {len(kept)} of {len(all_templates)} are kept: {'; '.join(kept)}")
    return task


def _open_source(source: str, out: str, options: dict[str, Any]) -> Source:
    from cliper.runner.sources import find_source
    from cliper.runner.storage import hide_credentials, is_remote

    if _absolute(source) == _absolute(out):
        shown = hide_credentials(out)
        raise InputError(f"expected another folder for results than for images, got {shown} for both; change --out")
    if not is_remote(out):
        check_out_folder(Path(out))
    found = find_source(source, glob=options["glob"], every=options["every"], skip=out)
    if options["overlay_video"] and found.kind != "video":
        raise InputError(f"--overlay-video: expected a video, got a {found.kind}; leave it out")
    if options["smooth"] and found.kind != "video":
        raise InputError(f"--smooth: expected a video, got a {found.kind}; leave it out")
    if next(found.items(), None) is None:
        hint = "the pattern of --glob matches none" if options["glob"] else "give --glob if their names end unusually"
        raise InputError(f"expected images in {hide_credentials(source)}, got none; {hint}")
    return found


def _write_run_files(run: Run, task: SegmentTask, options: dict[str, Any]) -> list[Path]:
    from cliper.batch.merge import merge_formats
    from cliper.batch.overlay_video import write_overlay_video

    paths = merge_formats(run, task)
    if options["overlay_video"]:
        paths.append(write_overlay_video(run, task.formats.index("labels"), task.class_names))
    return paths


def _absolute(uri: str) -> str:
    from cliper.runner.storage import is_remote

    return uri.rstrip("/") if is_remote(uri) else os.path.realpath(uri)
