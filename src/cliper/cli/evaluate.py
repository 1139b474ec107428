"""``cliper evaluate``: mIoU on a benchmark, or on your own images and masks."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from cliper.cli.errors import ExitCode, resume_hint
from cliper.cli.help import GroupedCommand, option, option_group
from cliper.cli.options import (
    background_option,
    classes_file_option,
    engine_options,
    model_options,
    read_background,
    read_settings,
)
from cliper.cli.progress import Progress
from cliper.cli.tables import print_report
from cliper.errors import InputError
from cliper.settings import ATTENTIONS, Preset, load_preset, presets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cliper.datasets import Benchmark, Sample
    from cliper.evaluation.job import CustomData, Job
    from cliper.evaluation.records import Record
    from cliper.evaluation.workers import Outcome

__all__ = ["evaluate"]

_CUSTOM_DATA_OPTIONS = ("images", "masks", "classes_file", "background_names", "first_label", "ignore")
_ABLATION_OPTIONS = ("attentions", "features", "refiners")

_EXAMPLES = """\
cliper evaluate vit-l-14/voc21 --data ROOT --out result
cliper evaluate voc21 --data ROOT --refiner self
cliper evaluate --images photos --masks truth --classes-file classes.txt
cliper evaluate voc21 --data ROOT --ablation --refiners none,self"""


@click.command(cls=GroupedCommand, epilog=_EXAMPLES)
@click.argument("target", required=False)
@option_group(
    "Input and output",
    option("--data FOLDER", "Root folder of the benchmarks' data sets.", "root"),
    option("--limit N", "Number of images to evaluate, from the first one.", show_default="all"),
    option(
        "-o, --out FOLDER",
        "Folder for the report. The same command continues an interrupted run in it.",
        show_default="print the results only",
    ),
    option(
        "--contact-sheet N",
        "Draw the N worst and N best images into OUT/contact-sheet.png.",
        type=click.IntRange(min=0),
        default=0,
    ),
    option(
        "--on-error",
        "What to do if an image or mask cannot be used; with skip the exit code is 1.",
        type=click.Choice(["stop", "skip"]),
        default="stop",
    ),
)
@option_group(
    "Your own images, in place of TARGET",
    option("--images FOLDER", "Folder of images."),
    option("--masks FOLDER", "Folder of masks: PNG, with the names of the images."),
    classes_file_option,
    background_option,
    option("--first-label", "Value of the first class in the masks.", type=click.Choice(["0", "1"]), default="1"),
    option("--ignore N", "Value in the masks that is not counted; repeat for more.", multiple=True, show_default="255"),
)
@option_group(
    "Ablation",
    option("--ablation", "Compare attentions, feature fusion and refiners in one run."),
    option(
        "--attentions NAMES",
        "Values of --attention, separated by commas; proxy needs a DINO.",
        default=",".join(name for name in ATTENTIONS if name != "proxy"),
    ),
    option("--features", "Feature fusion.", type=click.Choice(["both", "on", "off"]), default="both"),
    option("--refiners NAMES", "Refiners, separated by commas: none,self,sd2.1.", show_default="none and --refiner"),
)
@model_options
@engine_options
@option_group(
    "Execution",
    option(
        "--workers N",
        "Number of processes, each with a GPU or a share of the processors.",
        type=click.IntRange(min=1),
        show_default="1; with Ray one per GPU or machine",
    ),
    option(
        "--batch-size N",
        "Number of images of one size that go through the networks together.",
        show_default="1 on a CPU, 8 on a GPU",
    ),
    option("--allow-tf32", "Let a GPU compute float32 in TF32: faster, less exact."),
    option("--read-threads N", "Threads in each worker that read images ahead.", default=2),
)
@click.pass_context
def evaluate(context: click.Context, /, target: str | None, **options: Any) -> int:
    """Measure mIoU on TARGET, or on your own images and masks.

    TARGET is a preset such as vit-l-14/voc21 (see cliper benchmarks), which sets model, refiner and settings, and whose
    published mIoU is shown beside; or a benchmark such as voc21 (see cliper data list), measured with --model and the
    settings recommended for it. The exit code is 1 if images were skipped.
    """
    from cliper.evaluation import ConfusionMatrix
    from cliper.evaluation.report import make_report, write_report
    from cliper.evaluation.workers import evaluate as run

    out: Path | None = options["out"]
    if options["contact_sheet"] and out is None:
        raise click.UsageError("--contact-sheet: expected a folder for it, got none; give --out FOLDER")
    _check_unused_options(context, custom=target is None, ablation=options["ablation"])
    if options["address"] is not None and options["engine"] == "local":
        raise click.UsageError("--address: it is for --engine ray; give that too")
    job = _make_job(context, target, options)
    benchmark = job.benchmark()
    samples = job.samples(benchmark)
    identity = job.identity(samples)
    spread = None
    if options["engine"] == "ray":
        from cliper.scale.ray_evaluate import RayEvaluation

        spread = RayEvaluation(workers=options["workers"], address=options["address"])
    matrix = ConfusionMatrix(benchmark.num_labels, benchmark.ignore)
    with (
        nullcontext(out) if out else tempfile.TemporaryDirectory() as folder,
        resume_hint("the same command", on=KeyboardInterrupt) if out else nullcontext(),
        Progress(len(samples)) as progress,
    ):

        def on_record(record: Record) -> None:
            matrix.add_counts(record.counts.get(job.variants[0].label, []))
            progress.advance(error=record.error, status=f"mIoU {100 * matrix.miou:.1f}")

        workers = options["workers"] or 1
        outcome = run(job, samples, Path(folder), identity, workers=workers, seen=on_record, spread=spread)
    report = make_report(job, benchmark, identity, outcome)
    print_report(report)
    if out is not None:
        for file in write_report(out, report, outcome):
            click.echo(f"wrote {file}")
        if options["contact_sheet"]:
            _draw_sheet(job, benchmark, samples, outcome, out / "contact-sheet.png", options["contact_sheet"])
    return ExitCode.IMAGES_FAILED if report["skipped"] else ExitCode.DONE


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


def _check_unused_options(context: click.Context, *, custom: bool, ablation: bool) -> None:
    """Refuse options that would have no effect."""
    given = {name for name in context.params if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
    for names, used, purpose in (
        (_CUSTOM_DATA_OPTIONS, custom, "your own data, in place of a benchmark; leave one of them out"),
        (_ABLATION_OPTIONS, ablation, "an ablation; give --ablation, or leave it out"),
    ):
        for name in names:
            if name in given and not used:
                flag = "--background" if name == "background_names" else f"--{name.replace('_', '-')}"
                raise click.UsageError(f"{flag} is for {purpose}")


def _make_job(context: click.Context, target: str | None, options: dict[str, Any]) -> Job:
    from cliper.evaluation.job import Job, Variant, ablation_variants, benchmark_settings, load_benchmark

    preset = _find_preset(target)
    data: str | CustomData = target or "" if preset is None else preset.benchmark
    if target is None:
        if options["images"] is None and options["masks"] is None:
            raise click.UsageError("expected a preset, a benchmark, or --images and --masks; got none")
        data = _custom_data(options)
    elif options["root"] is None:
        raise click.UsageError("expected the root folder of the data sets, got none; give --data FOLDER")
    for name in ("model", "refiner"):
        if preset is not None and context.get_parameter_source(name) is ParameterSource.DEFAULT:
            options = {**options, name: getattr(preset, name)}
    settings = read_settings(options, None if preset is None else preset.settings)
    if preset is None and options["settings"] is None:
        given = {
            name: options[name] for name in ("score_threshold", "background_threshold") if options[name] is not None
        }
        settings = benchmark_settings(settings, load_benchmark(data)).replace(**given)
    refiner = None if options["refiner"] == "none" else options["refiner"]
    variants: tuple[Variant, ...] = (Variant("", settings, refiner),)
    if options["ablation"]:
        features = {"both": (True, False), "on": (True,), "off": (False,)}[options["features"]]
        named = f"none,{refiner or 'none'}" if options["refiners"] is None else options["refiners"]
        refiners = [None if name == "none" else name for name in _split_names(named)]
        variants = ablation_variants(settings, _split_names(options["attentions"]), features, refiners)
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
        batch=options["batch_size"],
        decoders=options["read_threads"],
        skip_errors=options["on_error"] == "skip",
        preset=None if preset is None else preset.name,
    )


def _find_preset(target: str | None) -> Preset | None:
    if target is None or (target not in presets() and "/" not in target):
        return None
    return load_preset(target)  # names the nearest ones if it does not exist


def _custom_data(options: dict[str, Any]) -> CustomData:
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


def _split_names(text: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
