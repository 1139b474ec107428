"""``cliper batch``: any number of pictures, in the formats that people use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cliper.cli.batch_show import Progress, show_outcome
from cliper.cli.options import class_options, model_options, read_background, read_class_options, read_settings
from cliper.errors import CliperError, InputError

if TYPE_CHECKING:
    from cliper.scale.job import Job
    from cliper.scale.sources import Source
    from cliper.scale.state import State

__all__ = ["batch"]


@click.command()
@click.argument("pictures", metavar="INPUT")
@class_options
@click.option("-o", "--out", required=True, help="Folder for the results; a path, or an address such as s3://...")
@click.option("-f", "--format", "formats", multiple=True, help="What to write; repeat for more [labels, overlay].")
@click.option("--glob", multiple=True, help="Which files: '*.jpg', '2024/**/*.png'. By default all pictures.")
@click.option("--every", type=int, default=None, help="Of a video, every n-th frame.")
@click.option("--overlay-video", is_flag=True, help="Of a video, also write OUT/overlay.mp4.")
@click.option("--resume", is_flag=True, help="Go on with the run in OUT; pictures that failed stay failed.")
@click.option("--retry-failed", is_flag=True, help="Go on, and try those that failed again.")
@click.option("--overwrite", is_flag=True, help="Begin anew; results of the run in OUT are removed.")
@click.option("--workers", type=int, default=None, help="Threads that read and that write; with Ray, models.")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="Who works.")
@click.option("--address", default=None, help="Of a Ray cluster, such as auto; by default Ray runs in here.")
@click.option("--min-area", type=int, default=0, help="Regions of fewer pixels take the label around them.")
@click.option("--fill-holes", is_flag=True, help="Background that one class encloses becomes that class.")
@click.option("--smooth", type=int, default=0, help="Smooth borders, by so many pixels.")
@click.option("--tolerance", type=float, default=1.0, show_default=True, help="Of polygons, in pixels.")
@click.option("--quality", type=int, default=90, show_default=True, help="Of JPEG and WebP overlays.")
@model_options
def batch(pictures: str, out: str, **options: Any) -> int:
    """Segment all pictures of INPUT: a folder, a list of paths, a tar or a video.

    Results go to OUT under the pictures' names and folders; OUT/manifest.jsonl says what became of each. A run that
    was stopped, by whatever, goes on with --resume. Exit code 1 if pictures failed.

    \b
    cliper batch photos -c "dog; grass" -o results
    cliper batch photos -c "dog; grass" -o results --format coco --format gallery
    cliper batch film.mp4 -c person -o frames --every 10 --overlay-video
    cliper batch s3://bucket/photos -c cat -o s3://bucket/labels --engine ray --address auto
    """
    from cliper.scale.folder import alone, begin, check_run
    from cliper.scale.places import plain_address
    from cliper.scale.state import open_state

    pictures, out = plain_address(pictures), plain_address(out)
    resume = options["resume"] or options["retry_failed"]
    if resume and options["overwrite"]:
        raise click.UsageError("expected --resume or --overwrite, got both; give one")
    if options["address"] and options["engine"] != "ray":
        raise click.UsageError("--address: it is for --engine ray; give that too")
    if options["workers"] is not None and options["workers"] < 1:
        raise InputError(f"--workers: expected at least 1, got {options['workers']}")
    job = _job(options)
    source = _source(pictures, out, options)
    job = _with_folder(job, source)
    with open_state(out) as state:
        identity = {"input": _absolute(pictures), "every": options["every"], "glob": options["glob"], **job.identity()}
        check_run(state.folder, identity, shown=out, resume=resume, overwrite=options["overwrite"])
        engine = _engine(job, source, options)
        with alone(state.folder), _says_how_to_go_on():
            begin(state.folder, state.place, identity, overwrite=options["overwrite"])
            state.begun()
            return _work(job, source, state, engine, options)


def _job(options: dict[str, Any]) -> Job:
    from cliper.formats import FormatOptions, find_format
    from cliper.scale.job import Cleaning, Job

    classes = read_class_options(options.pop("classes"), options.pop("classes_file"))
    background = read_background(options.pop("background_names"))
    names = [find_format(name).name for name in options["formats"] or ("labels", "overlay")]
    if options["overlay_video"]:
        names.append("labels")  # the video is drawn from them
    cleaning = Cleaning(options["min_area"], options["fill_holes"], options["smooth"])
    more = FormatOptions(options["tolerance"], options["quality"])
    return Job(
        tuple(classes),
        background if background is None or isinstance(background, str) else tuple(background),
        tuple(dict.fromkeys(names)),
        _folder_or_name(options["model"]),
        None if options["refiner"] in (None, "none") else _folder_or_name(options["refiner"]),
        read_settings(options),
        options["device"],
        options["dtype"],
        options["seed"],
        cleaning,
        more,
    )


def _with_folder(job: Job, source: Source) -> Job:
    """The job, told what the folder of the pictures is called: Label Studio's addresses begin with it."""
    from cliper.scale.places import folder_name

    folder = folder_name(source.address, is_folder=source.kind == "folder")
    return replace(job, options=replace(job.options, image_folder=folder))


def _source(pictures: str, out: str, options: dict[str, Any]) -> Source:
    from cliper.scale.folder import check_folder
    from cliper.scale.places import is_remote
    from cliper.scale.sources import find_source

    if _absolute(pictures) == _absolute(out):
        raise InputError(f"expected another folder for results than for pictures, got {out} for both; change --out")
    if not is_remote(out):
        check_folder(Path(out))
    source = find_source(pictures, glob=options["glob"], every=options["every"], skip=out)
    if options["overlay_video"] and source.kind != "video":
        raise InputError(f"--overlay-video: expected a video, got a {source.kind}; leave it out")
    if next(source.items(), None) is None:
        hint = "the pattern of --glob matches none" if options["glob"] else "give --glob if their names end unusually"
        raise InputError(f"expected pictures in {pictures}, got none; {hint}")
    return source


def _engine(job: Job, source: Source, options: dict[str, Any]) -> Any:
    """A function that does what is left of a run, with whatever it needs loaded."""
    workers = options["workers"]
    if options["engine"] == "ray":
        from cliper.scale.ray_engine import RayEngine

        return RayEngine(job, source, workers=workers, address=options["address"])
    from cliper.scale.pipeline import run_here

    segmenter = job.load()
    threads = workers or min(4, os.cpu_count() or 1)
    return lambda run: run_here(run, segmenter, workers=threads)


def _work(job: Job, source: Source, state: State, engine: Any, options: dict[str, Any]) -> int:
    from cliper.scale.claims import Claims
    from cliper.scale.finish import finish
    from cliper.scale.folder import MANIFEST, PARTS, RUN
    from cliper.scale.manifest import Manifest
    from cliper.scale.run import Run

    place = state.place
    claims = Claims(job.found_formats(), (RUN, MANIFEST) if place.local is not None else (RUN, MANIFEST, PARTS))
    with Manifest(state.folder / MANIFEST, claims.learn) as manifest, Progress(source) as progress:

        def seen(record: Any, new: bool) -> None:
            progress.seen(record, new)
            state.saved()

        run = Run(source, job, place, manifest, claims, seen, retry_failed=options["retry_failed"])
        engine(run)
        state.saved(now=True)
        paths = state.finished(finish(run, state.folder, overlay_video=options["overlay_video"]))
    show_outcome(run.tally, paths, progress.seconds)
    return 1 if run.tally.failed else 0


@contextmanager
def _says_how_to_go_on() -> Iterator[None]:
    try:
        yield
    except CliperError as error:
        raise type(error)(f"{error}; what was done is kept, and the same command with --resume goes on") from error
    except KeyboardInterrupt:
        click.echo("cliper: what was done is kept; the same command with --resume goes on", err=True)
        raise


def _folder_or_name(model: str) -> str:
    """A model that is a folder by its whole path: workers, and a later run, may be elsewhere."""
    folder = Path(model).expanduser()
    return str(folder.absolute()) if folder.is_dir() else model


def _absolute(address: str) -> str:
    from cliper.scale.places import is_remote

    return address.rstrip("/") if is_remote(address) else os.path.realpath(address)
