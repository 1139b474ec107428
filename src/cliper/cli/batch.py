"""``cliper batch``: any number of images, in the formats that annotation tools read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cliper.cli.errors import ExitCode, resume_hint
from cliper.cli.help import GroupedCommand, option, option_group
from cliper.cli.options import (
    check_out_folder,
    class_options,
    engine_options,
    model_options,
    read_background,
    read_class_options,
    read_settings,
)
from cliper.cli.progress import Progress
from cliper.cli.tables import print_summary
from cliper.errors import InputError

if TYPE_CHECKING:
    from cliper.scale.job import Job
    from cliper.scale.manifest import Record
    from cliper.scale.sources import Source
    from cliper.scale.state import State

__all__ = ["batch"]

_EXAMPLES = """\
cliper batch photos -c "dog; cat" -o results
cliper batch photos -c "dog; cat" -o results --resume
cliper batch photos -c "person; car" -o results -f coco -f gallery --min-area 200
cliper batch film.mp4 -c person -o frames --every 10 --overlay-video
cliper batch s3://bucket/photos -c cat -o s3://bucket/labels --engine ray"""


@click.command(cls=GroupedCommand, epilog=_EXAMPLES)
@click.argument("source", metavar="INPUT")
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
        "Format of the results; repeat for more: labels, overlay, overlay-jpg, overlay-webp, npz, coco, "
        "coco-panoptic, cvat, label-studio, labelme, yolo, gallery.",
        "formats",
        multiple=True,
        default=["labels", "overlay"],
    ),
    option("--overlay-video", "Write OUT/overlay.mp4, too, if INPUT is a video."),
    option("--resume", "Continue the run in OUT; images that failed stay failed."),
    option("--retry-failed", "Continue the run in OUT, and try images that failed again."),
    option("--overwrite", "Start again; results of the run in OUT are removed."),
)
@class_options
@option_group(
    "Results",
    option("--min-area PIXELS", "Merge smaller regions into the label around them.", default=0),
    option("--fill-holes", "Turn background that one class encloses into that class."),
    option("--smooth PIXELS", "Radius for smoothing borders.", default=0),
    option("--tolerance PIXELS", "Distance of polygons from the borders at most.", type=float, default=1.0),
    option("--quality N", "Quality of JPEG and WebP overlays, 1 to 100.", default=90),
)
@model_options
@engine_options
@option_group(
    "Execution",
    option(
        "--workers N",
        "Threads for reading and as many for writing; with Ray, number of models.",
        type=click.IntRange(min=1),
        show_default="up to 4; with Ray one per GPU or machine",
    ),
)
def batch(source: str, out: str, **options: Any) -> int:
    """Segment all images of INPUT: a folder, list, tar or video.

    Results are written to OUT under the names and folders of the images. OUT/manifest.jsonl has the state of each
    image. --resume continues a run that was interrupted or killed. An image that cannot be used is reported and the
    others are done; the exit code is then 1.
    """
    from cliper.scale.folder import alone, begin, check_run
    from cliper.scale.places import plain_address
    from cliper.scale.state import open_state

    source, out = plain_address(source), plain_address(out)
    resume = options["resume"] or options["retry_failed"]
    if resume and options["overwrite"]:
        raise click.UsageError("expected --resume or --overwrite, got both; give one")
    if options["address"] and options["engine"] != "ray":
        raise click.UsageError("--address: it is for --engine ray; give that too")
    images = _open_source(source, out, options)
    job = _make_job(images, options)
    with open_state(out) as state:
        identity = {"input": _absolute(source), "every": options["every"], "glob": options["glob"], **job.identity()}
        check_run(state.folder, identity, shown=out, resume=resume, overwrite=options["overwrite"])
        engine = _make_engine(job, images, options)
        with alone(state.folder), resume_hint("the same command with --resume"):
            begin(state.folder, state.place, identity, overwrite=options["overwrite"])
            state.begun()
            return _run(job, images, state, engine, options)


def _make_job(source: Source, options: dict[str, Any]) -> Job:
    from cliper.formats import FormatOptions, find_format
    from cliper.scale.job import Cleaning, Job
    from cliper.scale.places import folder_name

    classes = read_class_options(options["classes"], options["classes_file"])
    background = read_background(options["background_names"])
    formats = [find_format(name).name for name in options["formats"]]
    if options["overlay_video"]:
        formats.append("labels")  # the video is drawn from them
    # Label Studio's addresses begin with the name of the images' folder.
    folder = folder_name(source.address, is_folder=source.kind == "folder")
    return Job(
        tuple(classes),
        background if background is None or isinstance(background, str) else tuple(background),
        tuple(dict.fromkeys(formats)),
        _absolute_if_folder(options["model"]),
        None if options["refiner"] == "none" else _absolute_if_folder(options["refiner"]),
        read_settings(options),
        options["device"],
        options["dtype"],
        options["seed"],
        Cleaning(options["min_area"], options["fill_holes"], options["smooth"]),
        FormatOptions(options["tolerance"], options["quality"], folder),
    )


def _open_source(source: str, out: str, options: dict[str, Any]) -> Source:
    from cliper.scale.places import is_remote
    from cliper.scale.sources import find_source

    if _absolute(source) == _absolute(out):
        raise InputError(f"expected another folder for results than for images, got {out} for both; change --out")
    if not is_remote(out):
        check_out_folder(Path(out))
    found = find_source(source, glob=options["glob"], every=options["every"], skip=out)
    if options["overlay_video"] and found.kind != "video":
        raise InputError(f"--overlay-video: expected a video, got a {found.kind}; leave it out")
    if next(found.items(), None) is None:
        hint = "the pattern of --glob matches none" if options["glob"] else "give --glob if their names end unusually"
        raise InputError(f"expected images in {source}, got none; {hint}")
    return found


def _make_engine(job: Job, source: Source, options: dict[str, Any]) -> Any:
    """A function that executes a run; models are loaded before it is returned."""
    workers = options["workers"]
    if options["engine"] == "ray":
        from cliper.scale.ray_engine import RayEngine

        return RayEngine(job, source, workers=workers, address=options["address"])
    from cliper.scale.pipeline import run_here

    segmenter = job.load()
    threads = workers or min(4, os.cpu_count() or 1)
    return lambda run: run_here(run, segmenter, workers=threads)


def _run(job: Job, source: Source, state: State, engine: Any, options: dict[str, Any]) -> int:
    from cliper.scale.claims import Claims
    from cliper.scale.finish import finish
    from cliper.scale.folder import MANIFEST, PARTS, RUN
    from cliper.scale.manifest import Manifest
    from cliper.scale.run import Run

    place = state.place
    claims = Claims(job.found_formats(), (RUN, MANIFEST) if place.local is not None else (RUN, MANIFEST, PARTS))
    with Manifest(state.folder / MANIFEST, claims.learn) as manifest, Progress(source.count) as progress:

        def on_record(record: Record, new: bool) -> None:
            progress.advance(error=None if record.is_done else f"{record.input}: {record.error}", new=new)
            state.saved()

        run = Run(source, job, place, manifest, claims, on_record, retry_failed=options["retry_failed"])
        engine(run)
        state.saved(now=True)
        paths = state.finished(finish(run, state.folder, overlay_video=options["overlay_video"]))
    print_summary(run.tally, paths, progress.seconds)
    return ExitCode.IMAGES_FAILED if run.tally.failed else ExitCode.DONE


def _absolute_if_folder(model: str) -> str:
    """The absolute path of a model's folder: workers and later runs may have another current folder."""
    folder = Path(model).expanduser()
    return str(folder.absolute()) if folder.is_dir() else model


def _absolute(address: str) -> str:
    from cliper.scale.places import is_remote

    return address.rstrip("/") if is_remote(address) else os.path.realpath(address)
