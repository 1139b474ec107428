"""``cliper evaluate``: mIoU on a benchmark, or on one's own pictures and masks."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from cliper.cli.evaluate_show import Progress, show_report
from cliper.cli.options import model_options, read_background, read_settings
from cliper.errors import InputError
from cliper.settings import ATTENTIONS, Preset, load_preset, presets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cliper.benchmarks import Benchmark, Sample
    from cliper.evaluation.job import CustomData, Job
    from cliper.evaluation.workers import Outcome

__all__ = ["evaluate"]

_OWN = ("images", "masks", "classes_file", "background_names", "first_label", "ignore")
_ABLATION = ("attentions", "features", "refiners")


@click.command()
@click.argument("target", required=False)
@click.option("--data", "root", type=click.Path(path_type=Path), help="Root folder of the data sets.")
@click.option("--images", type=click.Path(path_type=Path), help="Your own pictures, in place of a benchmark.")
@click.option("--masks", type=click.Path(path_type=Path), help="Your own masks: PNG, named as the pictures.")
@click.option("--classes-file", type=click.Path(path_type=Path), help="Classes of your masks, one a line.")
@click.option("-b", "--background", "background_names", multiple=True, help="Background texts for your own data.")
@click.option("--first-label", type=click.Choice(["0", "1"]), default="1", help="Value of the first class in masks.")
@click.option("--ignore", type=int, multiple=True, help="Value of masks that is not counted [255].")
@click.option("--limit", type=int, default=None, help="Only so many pictures, the first ones.")
@click.option("--batch", type=int, default=None, help="Pictures of one size together; 1 on a CPU, 8 on a GPU.")
@click.option("--workers", type=int, default=None, help="Processes (default 1), a GPU or a share of cores each.")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="Who works.")
@click.option("--address", default=None, help="Of a Ray cluster, such as auto; by default Ray runs in here.")
@click.option("--allow-tf32", is_flag=True, help="Let a GPU compute float32 in TF32: faster, less exact.")
@click.option("--decoders", type=int, default=2, show_default=True, help="Threads that read ahead, in each worker.")
@click.option(
    "--on-error", type=click.Choice(["stop", "skip"]), default="stop", show_default=True, help="For a bad picture."
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder of the report; a killed run goes on there.")
@click.option(
    "--contact-sheet", type=click.IntRange(min=0), default=0, help="Draw so many worst and best pictures (needs --out)."
)
@click.option("--ablation", is_flag=True, help="Compare attentions, feature fusion and refiners, models loaded once.")
@click.option(
    "--attentions",
    default=",".join(name for name in ATTENTIONS if name != "proxy"),
    show_default=True,
    help="For --ablation; proxy, which needs a DINO, is compared where it is named.",
)
@click.option("--features", type=click.Choice(["both", "on", "off"]), default="both", help="For --ablation.")
@click.option("--refiners", default=None, help='For --ablation: "none,self,sd2.1" [none and --refiner].')
@model_options
@click.pass_context
def evaluate(context: click.Context, /, target: str | None, **options: Any) -> int:
    """Measure mIoU on TARGET: a preset (vit-l-14/voc21) or a benchmark (voc21), or on your own data.

    A preset brings model, refiner and settings, and its published number is shown beside; a benchmark takes --model
    and what is recommended for it. With --out a run that was stopped goes on where it was. Exit code 1 if pictures
    were skipped.

    \b
    cliper evaluate vit-l-14/voc21 --data ROOT --out voc21
    cliper evaluate voc21 --model mini --data ROOT --refiner none
    cliper evaluate --images photos --masks truth --classes-file classes.txt
    """
    from cliper.evaluation.report import make_report, write_report
    from cliper.evaluation.workers import evaluate as run

    out: Path | None = options["out"]
    if options["contact_sheet"] and out is None:
        raise click.UsageError("--contact-sheet: expected a folder for it, got none; give --out DIR")
    _check_modes(context, own=target is None, ablation=options["ablation"])
    if options["address"] is not None and options["engine"] == "local":
        raise click.UsageError("--address is for --engine ray; add it, or leave this out")
    job = _job(context, target, options)
    benchmark = job.benchmark()
    samples = job.samples(benchmark)
    identity = job.identity(samples)
    with (
        nullcontext(out) if out else tempfile.TemporaryDirectory() as place,
        Progress(benchmark, job.variants[0].label, len(samples)) as progress,
    ):
        workers = options["workers"]
        spread = None
        if options["engine"] == "ray":
            from cliper.scale.ray_evaluate import RayEvaluation

            spread = RayEvaluation(workers=workers, address=options["address"])
        workers = 1 if workers is None else workers
        outcome = run(job, samples, Path(place), identity, workers=workers, seen=progress.seen, spread=spread)
    report = make_report(job, benchmark, identity, outcome)
    show_report(report)
    if out is not None:
        for file in write_report(out, report, outcome):
            click.echo(f"wrote {file}")
        if options["contact_sheet"]:
            _draw_sheet(job, benchmark, samples, outcome, out / "contact-sheet.png", options["contact_sheet"])
    return 1 if report["skipped"] else 0


def _draw_sheet(
    job: Job, benchmark: Benchmark, samples: Sequence[Sample], outcome: Outcome, path: Path, count: int
) -> None:
    from cliper.evaluation.contact_sheet import pick_extremes, write_sheet

    label = job.variants[0].label
    chosen = pick_extremes(outcome.records, benchmark, label, count)
    if chosen:
        with job.float32_precision():
            write_sheet(path, chosen, samples, benchmark, job.load()[label])
        click.echo(f"wrote {path}")


def _check_modes(context: click.Context, *, own: bool, ablation: bool) -> None:
    """Refuse options that would have no effect."""
    given = {name for name in context.params if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
    for names, used, what in (
        (_OWN, own, "your own data, in place of a benchmark; leave one of them out"),
        (_ABLATION, ablation, "an ablation; give --ablation, or leave it out"),
    ):
        for name in names:
            if name in given and not used:
                flag = "--background" if name == "background_names" else f"--{name.replace('_', '-')}"
                raise click.UsageError(f"{flag} is for {what}")


def _job(context: click.Context, target: str | None, options: dict[str, Any]) -> Job:
    from cliper.evaluation.job import Job, Variant, ablation_variants, benchmark_settings, load_benchmark

    preset = _preset(target)
    data: str | CustomData = target or "" if preset is None else preset.benchmark
    if target is None:
        if options["images"] is None and options["masks"] is None:
            raise click.UsageError("expected a preset, a benchmark, or --images and --masks; got none")
        data = _custom(options)
    elif options["root"] is None:
        raise click.UsageError("expected the root folder of the data sets, got none; give --data ROOT")
    if preset is not None:
        if context.get_parameter_source("model") is ParameterSource.DEFAULT:
            options = {**options, "model": preset.model}
        if options["refiner"] is None:
            options = {**options, "refiner": preset.refiner}
    settings = read_settings(options, None if preset is None else preset.settings)
    if preset is None and options["settings"] is None:
        given = {name: options[name] for name in ("score", "background") if options[name] is not None}
        settings = benchmark_settings(settings, load_benchmark(data)).replace(**given)
    refiner = None if options["refiner"] in (None, "none") else options["refiner"]
    variants: tuple[Variant, ...] = (Variant("", settings, refiner),)
    if options["ablation"]:
        features = {"both": (True, False), "on": (True,), "off": (False,)}[options["features"]]
        named = f"none,{refiner or 'none'}" if options["refiners"] is None else options["refiners"]
        refiners = [None if name == "none" else name for name in _names(named)]
        variants = ablation_variants(settings, _names(options["attentions"]), features, refiners)
    return Job(
        data,
        options["root"],
        str(options["model"]),
        variants,
        limit=options["limit"],
        device=options["device"],
        dtype=options["dtype"],
        allow_tf32=options["allow_tf32"],
        seed=options["seed"],
        batch=options["batch"],
        decoders=options["decoders"],
        skip_errors=options["on_error"] == "skip",
        preset=None if preset is None else preset.name,
    )


def _preset(target: str | None) -> Preset | None:
    if target is None or (target not in presets() and "/" not in target):
        return None
    return load_preset(target)  # names the nearest ones if there is none


def _custom(options: dict[str, Any]) -> CustomData:
    from cliper.evaluation.job import CustomData
    from cliper.prompts import read_classes, scene_background

    for name in ("images", "masks", "classes_file"):
        if options[name] is None:
            raise InputError(
                f"--{name.replace('_', '-')}: expected it, got none; your own data needs --images, --masks and "
                "--classes-file"
            )
    classes = read_classes(options["classes_file"])
    named = read_background(options["background_names"])
    background = scene_background(classes) if isinstance(named, str) else named or []
    return CustomData(
        options["images"],
        options["masks"],
        tuple(classes),
        tuple(background),
        options["ignore"] or None,
        1 if options["first_label"] == "0" else 0,
    )


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
