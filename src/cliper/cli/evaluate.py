"""``cliper evaluate``: mIoU on a benchmark, or on your own images and masks."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from cliper.cli.completion import complete_targets
from cliper.cli.custom_data import (
    CUSTOM_DATA_OPTIONS,
    custom_data_options,
    read_benchmark_settings,
    read_custom_data,
)
from cliper.cli.errors import ExitCode, echo_warning, is_quiet
from cliper.cli.help import GroupedCommand, option, option_group
from cliper.cli.options import (
    check_out_folder,
    echo_notes,
    message_options,
    model_options,
    read_background,
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
from cliper.cli.tables import print_model, print_report
from cliper.files import write_text
from cliper.settings import ATTENTIONS, load_preset, load_words, presets

if TYPE_CHECKING:
    from cliper.datasets import Benchmark, Vocabulary
    from cliper.evaluation.task import EvaluationTask
    from cliper.runner.manifest import Record
    from cliper.runner.run import Run

__all__ = ["evaluate"]

_ABLATION_OPTIONS = ("attentions", "features", "refiners")
_VOCABULARY_OPTIONS = ("vocabulary_background", "vocabulary_seed")

_EXAMPLES = """\
cliper evaluate vit-l-14/voc21 --data ROOT --out result
cliper evaluate voc21 --data ROOT --refiner self
cliper evaluate vit-l-14/voc21 --data ROOT --out result --resume
cliper evaluate --images photos --masks truth --classes-file classes.txt
cliper evaluate voc21 --data ROOT --vocabulary curated,plain,synonyms,distractors:100
cliper evaluate voc21 --data ROOT --ablation --refiners none,self
cliper evaluate voc21 --data ROOT --refiner self --ablate-refiner"""


@click.command(cls=GroupedCommand, epilog=_EXAMPLES)
@click.argument("target", required=False, shell_complete=complete_targets)
@option_group(
    "Input and output",
    option("--data FOLDER", "Root folder of the benchmarks' data sets.", "root"),
    option(
        "--limit N",
        "Number of images to evaluate, from the first one.",
        type=click.IntRange(min=1),
        show_default="all",
    ),
    option(
        "-o, --out FOLDER",
        "Folder for the report, or an address such as s3://bucket/report.",
        type=str,
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
@run_options
@custom_data_options("Your own images, in place of TARGET")
@option_group(
    "Vocabulary",
    option(
        "--vocabulary NAMES",
        "Words for the classes: curated, plain, synonyms, distractors:N; several, separated by commas, in one run.",
        "vocabularies",
        multiple=True,
        show_default="curated",
    ),
    option(
        "--vocabulary-background NAMES",
        "Background of plain, synonyms and distractors: names, auto or none.",
        default="none",
    ),
    option("--vocabulary-seed N", "Chooses synonyms and distractors.", type=int, default=0),
)
@option_group(
    "Ablation",
    option("--ablation", "Compare attentions, feature fusion and refiners in one run."),
    option("--ablate-refiner", "Compare the options of --refiner in one run."),
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
        "--batch-size N",
        "Number of images of one size that go through the networks together.",
        type=click.IntRange(min=1),
        show_default="1 on a CPU, 8 on a GPU",
    ),
    option("--allow-tf32", "Let a GPU compute float32 in TF32: faster, less exact."),
)
@message_options
@click.pass_context
def evaluate(context: click.Context, /, target: str | None, **options: Any) -> int:
    """Measure mIoU on TARGET, or on your own images and masks.

    TARGET is a preset such as vit-l-14/voc21 (see cliper benchmarks), which sets model, refiner and settings, and whose
    published mIoU is shown beside; or a benchmark such as voc21 (see cliper data list), measured with --model and the
    settings recommended for it. The exit code is 1 if images were skipped.
    """
    from cliper.checkpoints import resolve
    from cliper.evaluation.contact_sheet import write_sheet
    from cliper.evaluation.report import make_report
    from cliper.evaluation.task import SampleSource
    from cliper.runner.run import run_task
    from cliper.runner.storage import is_remote, normalize_uri

    out = None if options["out"] is None else normalize_uri(options["out"])
    if options["contact_sheet"] and out is None:
        raise click.UsageError("--contact-sheet: expected a folder for it, got none; give --out FOLDER")
    if out is not None and not is_remote(out):
        check_out_folder(Path(out))
    _check_unused_options(context, target is None, options["ablation"], bool(options["vocabularies"]))
    run_options = read_run_options(options, stop_on_error=options["on_error"] == "stop", temporary=out is None)
    if options["engine"] == "ray":  # workers run in other folders
        options |= {name: value.absolute() for name, value in options.items() if isinstance(value, Path)}
    task = _make_task(context, target, options)
    samples = task.samples()
    config = task.config(samples)
    progress = _MatrixProgress(len(samples), task)
    report: dict[str, Any] = {}

    def finish(run: Run) -> tuple[list[Path], Mapping[str, Any]]:
        records = [record for _, record in run.manifest.records()]
        report.update(make_report(task, config, records, run.stats, run.counts.done))
        paths = [run.run_dir.folder / "report.json"]
        write_text(paths[0], json.dumps(report, indent=1) + "\n")
        if options["contact_sheet"]:
            sheet = run.run_dir.folder / "contact-sheet.png"
            paths += write_sheet(sheet, task, records, options["contact_sheet"])
        return paths, {variant.label: progress.miou for variant in task.variants[:1]}

    models = task.variants[0].models
    checkpoint = resolve(models.model, "clip")
    print_model(checkpoint, None if options["ablation"] else models.refiner)
    echo_notes(checkpoint, task.texts(task.variants[0]).classes)
    engine = make_engine(task, options)
    with nullcontext(out) if out else tempfile.TemporaryDirectory() as folder:
        source = SampleSource(task.benchmark.name, samples)
        run, paths = run_task(task, source, folder, config, engine, progress, finish, run_options)
    log_stats(run)
    if out is None or not is_quiet():
        print_report(report)
    for path in paths if out and not is_quiet() else ():
        click.echo(f"wrote {path}")
    return ExitCode.IMAGES_FAILED if report["skipped"] else ExitCode.DONE


class _MatrixProgress(Progress):
    """Shows the mIoU of the first variant so far."""

    def __init__(self, total: int, task: EvaluationTask) -> None:
        super().__init__(total)
        self._matrix = task.new_matrix(task.variants[0])
        self._label = task.variants[0].label

    @property
    def miou(self) -> float:
        """Of the images so far."""
        return self._matrix.miou

    def on_record(self, record: Record, new: bool) -> None:
        """Count an image."""
        self._matrix.add_counts(record.details["counts"][self._label] if record.is_done else [])
        self.status = f"mIoU {100 * self.miou:.1f}"
        super().on_record(record, new)


def _check_unused_options(context: click.Context, custom: bool, ablation: bool, vocabulary: bool) -> None:
    """Refuse options that would have no effect."""
    given = {name for name in context.params if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
    for names, used, purpose in (
        (CUSTOM_DATA_OPTIONS, custom, "your own data, in place of a benchmark; leave one of them out"),
        (_ABLATION_OPTIONS, ablation, "an ablation; give --ablation, or leave it out"),
        (_VOCABULARY_OPTIONS, vocabulary, "other words; give --vocabulary, or leave it out"),
    ):
        for name in names:
            if name in given and not used:
                flag = "--background" if name == "background_names" else f"--{name.replace('_', '-')}"
                raise click.UsageError(f"{flag} is for {purpose}")


def _make_task(context: click.Context, target: str | None, options: dict[str, Any]) -> EvaluationTask:
    from cliper.datasets import find_benchmark
    from cliper.evaluation.refiner_ablation import refiner_variants
    from cliper.evaluation.task import EvaluationTask, Variant, ablation_variants, vocabulary_variants
    from cliper.refiners import refiner_kind

    is_preset = target is not None and (target in presets() or "/" in target)
    preset = load_preset(target or "") if is_preset else None  # names the nearest ones if it does not exist
    data: str | Benchmark = target or "" if preset is None else preset.benchmark
    if target is None:
        if options["images"] is None and options["masks"] is None:
            raise click.UsageError("expected a preset, a benchmark, or --images and --masks; got none")
        data = read_custom_data(options)
    elif options["root"] is None:
        raise click.UsageError("expected the root folder of the data sets, got none; give --data FOLDER")
    elif (words := load_words(options["settings"])).classes or words.background:
        echo_warning(f"classes and background of {options['settings']} are not used: {target} has its own")
    benchmark = find_benchmark(data) if isinstance(data, str) else data
    for name in ("model", "refiner"):
        if preset is not None and context.get_parameter_source(name) is ParameterSource.DEFAULT:
            options = {**options, name: getattr(preset, name)}
    if preset is not None:
        settings = read_settings(options, preset.settings)
    else:
        settings = read_benchmark_settings(options, benchmark)
    models = read_model_config(options, settings)
    variants: tuple[Variant, ...] = (Variant("", models),)
    if options["ablation"] and options["ablate_refiner"]:
        raise click.UsageError("expected --ablation or --ablate-refiner, got both; give one")
    if options["ablation"]:
        features = {"both": (True, False), "on": (True,), "off": (False,)}[options["features"]]
        named = f"none,{models.refiner or 'none'}" if options["refiners"] is None else options["refiners"]
        refiners = [None if name == "none" else name for name in _split_names(named)]
        variants = ablation_variants(models, _split_names(options["attentions"]), features, refiners)
    if options["ablate_refiner"]:
        variants = refiner_variants(models, refiner_kind(models.refiner or "none"))
    if options["vocabularies"]:
        variants = vocabulary_variants(variants, _read_vocabularies(benchmark, options))
    return EvaluationTask(
        data,
        {name: options[name] for name in ("root", "images", "masks") if options[name] is not None},
        variants,
        limit=options["limit"],
        allow_tf32=options["allow_tf32"],
        batch=options["batch_size"],
        preset=None if preset is None else preset.name,
    )


def _read_vocabularies(benchmark: Benchmark, options: dict[str, Any]) -> list[Vocabulary]:
    from cliper.datasets import make_vocabulary

    seed = options["vocabulary_seed"]
    background = read_background((options["vocabulary_background"],), origin="--vocabulary-background") or ()
    names = _split_names(",".join(options["vocabularies"]))
    if not names:
        raise click.UsageError("--vocabulary: expected a name such as plain, got none")
    if background and {*names} == {"curated"}:
        raise click.UsageError("--vocabulary-background is for other words than the benchmark's own; leave it out")
    found = [make_vocabulary(benchmark, name, background=background, seed=seed) for name in names]
    return list(dict.fromkeys(found))


def _split_names(text: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
