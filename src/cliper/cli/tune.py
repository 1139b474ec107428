"""``cliper tune``: settings for your own images, chosen on a few that are labelled."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cliper.cli.custom_data import custom_data_options, read_benchmark_settings, read_custom_data
from cliper.cli.errors import echo_status, is_quiet
from cliper.cli.help import GroupedCommand, option, option_group
from cliper.cli.options import check_out_folder, echo_notes, message_options, model_options
from cliper.cli.runs import read_model_config
from cliper.cli.tables import print_model, print_table
from cliper.errors import InputError
from cliper.files import write_text
from cliper.prompts import format_classes

if TYPE_CHECKING:
    from cliper.evaluation.task import EvaluationTask
    from cliper.evaluation.tune import TuneResult

__all__ = ["tune"]

_EXAMPLES = """\
cliper tune --images photos --masks truth --classes-file classes.txt -o tuned.yaml
cliper batch photos --settings tuned.yaml -o results"""


@click.command(cls=GroupedCommand, epilog=_EXAMPLES)
@custom_data_options("Labelled images")
@option_group(
    "Search and output",
    option("-o, --out FILE", "Settings file to write, such as tuned.yaml.", required=True),
    option("--limit N", "Number of images to use, spread over all of them.", type=click.IntRange(min=2), default=40),
    option("--folds N", "Number of folds of the cross-validation.", type=click.IntRange(min=2), default=5),
    option("--choose-templates", "Try the text templates whose predictions on the images are the surest, too."),
)
@model_options
@message_options
def tune(out: Path, limit: int, folds: int, choose_templates: bool, **options: Any) -> int:
    """Choose settings for your own images, on a few with masks.

    Thresholds, logit scale and background words are chosen. The networks run once on each labelled image; label 20
    images or more, each class in several of them. The mIoU before and after is shown, by cross-validation: what
    is chosen on some images is measured on others. The file also holds the classes and the background; every command
    takes it with --settings. If tuning does not help, the given settings are written.
    """
    from cliper.evaluation.labelled_images import load_labelled
    from cliper.evaluation.task import EvaluationTask, Variant
    from cliper.evaluation.tune import tune as search
    from cliper.template_selection import choose_templates as choose

    if out.suffix.lower() not in (".yaml", ".yml"):
        raise InputError(f"--out: expected a name ending in .yaml, got {out}")
    check_out_folder(out.parent)
    benchmark = read_custom_data(options)
    models = read_model_config(options, read_benchmark_settings(options, benchmark))
    task = EvaluationTask(benchmark, {}, (Variant("", models),))
    found = task.samples()
    samples = found[:: -(-len(found) // limit)]
    if len(samples) < 2:
        raise InputError(f"expected at least 2 labelled images, got {len(samples)}; label more")
    if len(samples) < len(found) and not is_quiet():
        click.echo(f"using {len(samples)} of {len(found)} images; --limit changes that")
    started = time.monotonic()
    with task.load() as loaded:
        segmenter = loaded[""]
        print_model(segmenter.checkpoint, models.refiner)
        echo_notes(segmenter.checkpoint, benchmark.texts.classes, segmenter.encoder)
        images = load_labelled(task, segmenter, samples, _show_step)
        words = benchmark.texts.classes, benchmark.texts.background
        features = [image.encoded.views[0] for image in images]
        templates = choose(segmenter, features, *words) if choose_templates else None
        result = search(
            segmenter, images, *words, ignore=benchmark.ignore, templates=templates, folds=folds, notify=_show_step
        )
    write_text(out, _settings_file(task, result, len(images), min(folds, len(images))))
    if is_quiet():
        return 0
    _print_result(task, result)
    click.echo(f"{time.monotonic() - started:.0f} s; wrote {out}")
    return 0


def _show_step(step: str) -> None:
    if not is_quiet():
        echo_status(step)


def _print_result(task: EvaluationTask, result: TuneResult) -> None:
    names = ("background", *task.benchmark.class_names)
    rows = [
        _row(name, before, after)
        for label, (name, before, after) in enumerate(zip(names, result.before.iou, result.after.iou, strict=True))
        if label not in task.benchmark.ignore
    ]
    rows.append(_row("mIoU", result.before.miou, result.after.miou))
    click.echo("IoU in percent; after: by cross-validation")
    print_table(("class", "before", "after", "change"), rows, numbers={"before", "after", "change"})
    if not result.improved:
        click.echo("tuning does not help on these images: the given settings are kept")
        return
    given = task.models.settings
    for name in ("logit_scale", "score_threshold", "background_threshold"):
        click.echo(f"{name}: {getattr(given, name):g} -> {getattr(result.settings, name):g}")
    if result.settings.templates != given.templates:
        click.echo(f"templates: {'; '.join(result.settings.templates)}")
    names_found = result.background if isinstance(result.background, str) else format_classes(result.background)
    click.echo(f"background: {names_found if isinstance(names_found, str) else '; '.join(names_found)}")


def _row(name: str, before: float, after: float) -> tuple[str, ...]:
    if before != before:  # NaN: not in the ground truth at the pixels that are compared
        return name, "-", "-", "-"
    return name, f"{100 * before:.1f}", f"{100 * after:.1f}", f"{100 * (after - before):+.1f}"


def _settings_file(task: EvaluationTask, result: TuneResult, images: int, folds: int) -> str:
    """The settings as YAML, after comments that say where they come from."""
    import yaml

    from cliper import __version__

    models, before, after = task.models, 100 * result.before.miou, 100 * result.after.miou
    made = "chosen by" if result.improved else "as given: they were not improved by"
    model = " ".join(f"{models.model}, refiner {models.refiner or 'none'}".split())
    head = (
        f"# Settings {made} cliper tune (cliper {__version__}) on {images} images, {time.strftime('%Y-%m-%d')}\n"
        f"# Model {model}\n"
        f"# mIoU by {folds}-fold cross-validation: {before:.1f} before, {after:.1f} after (percent)\n"
    )
    names = result.background
    content = {
        **result.settings.to_dict(),
        "classes": format_classes(task.benchmark.texts.classes),
        "background": names if isinstance(names, str) else format_classes(names),
    }
    return head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
