"""The results of an evaluation: ``report.json``."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from cliper.evaluation.task import EvaluationTask, Variant
from cliper.provenance import machine, versions
from cliper.runner.manifest import Record
from cliper.runner.run import EngineStats
from cliper.settings import load_preset

__all__ = ["make_report"]

_KEYS = ("preset", "model", "device", "dtype", "refiner_dtype", "allow_tf32", "seed", "limit", "classes", "background")


def make_report(
    task: EvaluationTask, config: Mapping[str, Any], records: Sequence[Record], stats: EngineStats, new: int
) -> dict[str, Any]:
    """All that is needed to judge and to repeat the evaluation, as plain values.

    Of one variant, the metrics are at the top; of several, in a list ``variants``.

    Args:
        task: what was evaluated.
        config: the task's.
        records: of all images, in the order of the benchmark.
        stats: of this run.
        new: number of images of this run; the others are of earlier runs.
    """
    benchmark = task.benchmark
    counted = [record for record in records if record.is_done]
    skipped = [{"name": record.input, "error": record.error} for record in records if not record.is_done]
    complete = task.limit is None and len(records) in benchmark.accepted_sizes and not skipped
    report: dict[str, Any] = {
        "benchmark": benchmark.name,
        "title": benchmark.title,
        "images": len(counted),
        "complete": complete,
        "skipped": len(skipped),
        "skipped_images": skipped,
    }
    metrics = [_variant_metrics(task, variant, counted) for variant in task.variants]
    if config.get("vocabularies"):
        report["vocabularies"] = config["vocabularies"]
        for variant, row in zip(task.variants, metrics, strict=True):
            pairs = zip(task.variants, metrics, strict=True)
            row["robust_miou"] = _robust([other["miou"] for one, other in pairs if one.models == variant.models])
    if len(metrics) == 1:
        report |= metrics[0] | {"published": _published(task, metrics[0]["miou"] if complete else None)}
    else:
        report["variants"] = metrics
    seconds = sum(record.seconds for record in counted)
    total = stats.model_seconds + stats.waiting_seconds
    return report | {
        **{key: config[key] for key in _KEYS},
        "refiner_weights": config["refiners"],
        "proxy_weights": config["proxy_models"],
        "vae_weights": config["refine_vaes"],
        "data": {name: str(folder) for name, folder in task.folders.items()},
        "versions": versions(),
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(seconds, 2),
        "seconds_per_image": round(seconds / len(counted), 4) if counted else None,
        "this_run": {
            "images": new,
            "model_seconds": round(stats.model_seconds, 2),
            "waiting_seconds": round(stats.waiting_seconds, 2),
            "model_idle_share": round(stats.waiting_seconds / total, 4) if total else 0.0,
        },
        "peak_memory": dict(stats.peak_memory),
    }


def _variant_metrics(task: EvaluationTask, variant: Variant, records: Sequence[Record]) -> dict[str, Any]:
    """One variant's numbers, in [0, 1]; null where a class does not occur in the ground truth."""
    from cliper.ops.metrics import mean_iou_all

    benchmark = task.benchmark
    matrix = task.new_matrix(variant)
    for record in records:
        matrix.add_counts(record.details["counts"][variant.label])
    names = ("background", *benchmark.class_names)
    extra: dict[str, Any] = {}
    if variant.vocabulary is not None:
        ignored = [label for label in benchmark.ignore if label < benchmark.num_labels]
        predicted = matrix.matrix.sum(0)[benchmark.num_labels :].tolist()
        extra = {
            "vocabulary": variant.vocabulary.name,
            "miou_all": _finite_or_none(mean_iou_all(matrix.matrix, ignored)),
            "distractors": dict(zip(variant.vocabulary.distractors, predicted, strict=True)),
        }
    return {
        "label": variant.label,
        "miou": _finite_or_none(matrix.miou),
        "pixel_accuracy": _finite_or_none(matrix.pixel_accuracy),
        "mean_accuracy": _finite_or_none(matrix.mean_accuracy),
        "class_iou": {
            name: _finite_or_none(value)
            for index, (name, value) in enumerate(zip(names, matrix.iou[: len(names)].tolist(), strict=True))
            if index not in benchmark.ignore
        },
        "matrix": matrix.matrix.tolist(),
        "ignore": list(benchmark.ignore),
        "settings": variant.models.settings.to_dict(),
        "refiner": variant.models.refiner or "none",
        **extra,
    }


def _robust(mious: Sequence[float | None]) -> dict[str, float | None]:
    """Mean and minimum of the mIoU over the vocabularies; null if no class was counted."""
    values = [value for value in mious if value is not None]
    if len(values) < len(mious):
        return {"mean": None, "minimum": None}
    return {"mean": round(sum(values) / len(values), 6), "minimum": min(values)}


def _published(task: EvaluationTask, miou: float | None) -> dict[str, Any] | None:
    """The preset's published number and the difference, in percent, and what was done differently.

    Args:
        task: what was evaluated.
        miou: None unless the whole benchmark was.
    """
    if task.preset is None:
        return None
    preset, models = load_preset(task.preset), task.models
    value = preset.published.get("miou_unrefined" if models.refiner is None else "miou")
    if value is None:
        return None
    logged = None if models.refiner is None else preset.published.get("miou_logged")
    ours, old = models.settings.to_dict(), preset.settings.to_dict()
    changed = [f"{key} {ours[key]}" for key in sorted(ours) if ours[key] != old[key]]
    for name, mine, theirs in (
        ("model", models.model, (preset.model, preset.model.casefold())),
        ("refiner", models.refiner, (preset.refiner, None)),
        ("dtype", models.dtype, ("float32", None)),
    ):
        if mine not in theirs:
            changed.append(f"{name} {mine}")
    vocabulary = task.variants[0].vocabulary
    if vocabulary is not None and vocabulary.name != "curated":
        changed.append(f"vocabulary {vocabulary.name}")

    def difference(published: float | None) -> float | None:
        return None if miou is None or published is None else round(100 * miou - published, 2)

    return {
        "miou_percent": value,
        "difference_percent": difference(value),
        "logged_miou_percent": logged,
        "logged_difference_percent": difference(logged),
        "changed": changed,
    }


def _finite_or_none(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)
