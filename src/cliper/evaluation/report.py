"""What an evaluation says in the end: ``report.json``, and tables for a person."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cliper.datasets import Benchmark
from cliper.evaluation.confusion import ConfusionMatrix
from cliper.evaluation.job import Job, Variant
from cliper.evaluation.records import Record, matrix_of
from cliper.evaluation.workers import Outcome
from cliper.provenance import machine, versions
from cliper.settings import load_preset

__all__ = ["make_report", "variant_metrics", "write_report"]

REPORT = "report.json"
PICTURES = "pictures.jsonl"


def make_report(job: Job, benchmark: Benchmark, identity: Mapping[str, Any], outcome: Outcome) -> dict[str, Any]:
    """All that a number needs to be believed, as plain values.

    Of one variant, its metrics stand at the top; of several, in a list ``variants``.
    """
    counted = [record for record in outcome.records if record.error is None]
    skipped = [{"name": r.name, "error": r.error} for r in outcome.records if r.error is not None]
    whole = job.limit is None and len(outcome.records) in benchmark.accepted_sizes
    found: dict[str, Any] = {
        "benchmark": benchmark.name,
        "title": benchmark.title,
        "images": len(counted),
        "complete": whole and not skipped,
        "skipped": len(skipped),
        "skipped_images": skipped,
    }
    metrics = [variant_metrics(benchmark, variant, counted) for variant in job.variants]
    if len(metrics) == 1:
        found |= metrics[0] | {"published": _published(job, metrics[0]["miou"] if found["complete"] else None)}
    else:
        found["variants"] = metrics
    seconds = sum(record.seconds for record in counted)
    return found | {
        "preset": job.preset,
        "model": identity["model"],
        "refiner_weights": identity["refiners"],
        "proxy_weights": identity["proxy_models"],
        "device": identity["device"],
        "dtype": identity["dtype"],
        "refiner_dtype": identity["refiner_dtype"],
        "allow_tf32": job.allow_tf32,
        "seed": job.seed,
        "limit": job.limit,
        "classes": identity["classes"],
        "background": identity["background"],
        "data": _folders(job),
        "versions": versions(),
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(seconds, 2),
        "seconds_per_image": round(seconds / len(counted), 4) if counted else None,
        "this_run": {
            "images": outcome.new,
            "model_seconds": round(outcome.timing.model, 2),
            "waiting_seconds": round(outcome.timing.waiting, 2),
            "model_idle_share": round(outcome.timing.idle_share, 4),
        },
        "peak_memory": outcome.peak_memory,
    }


def variant_metrics(benchmark: Benchmark, variant: Variant, records: Sequence[Record]) -> dict[str, Any]:
    """One variant's numbers, in [0, 1]; null where a class does not occur in the ground truth."""
    matrix = matrix_of(records, variant.label, benchmark.num_labels, benchmark.ignore)
    names = ("background", *benchmark.class_names)
    return {
        "label": variant.label,
        "miou": _number(matrix.miou),
        "pixel_accuracy": _number(matrix.pixel_accuracy),
        "mean_accuracy": _number(matrix.mean_accuracy),
        "class_iou": {
            name: _number(value)
            for index, (name, value) in enumerate(zip(names, matrix.iou.tolist(), strict=True))
            if index not in benchmark.ignore
        },
        "matrix": matrix.matrix.tolist(),
        "ignore": list(benchmark.ignore),
        "settings": variant.settings.to_dict(),
        "refiner": variant.refiner or "none",
    }


def write_report(folder: Path, report: Mapping[str, Any], outcome: Outcome) -> list[Path]:
    """Write ``report.json`` and ``pictures.jsonl`` (a line a picture: mIoU by variant, or what was wrong).

    Raises:
        OutputError: they cannot be written.
    """
    from cliper.files import atomic_write

    labels = len(report["matrix"]) if "matrix" in report else len(report["variants"][0]["matrix"])
    ignore = report["ignore"] if "ignore" in report else report["variants"][0]["ignore"]
    with atomic_write(folder / PICTURES) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for record in outcome.records:
            miou = {label: _number(matrix_of([record], label, labels, ignore).miou) for label in record.counts}
            line = {"name": record.name, "miou": miou, "seconds": record.seconds, "error": record.error}
            stream.write(json.dumps(line) + "\n")
    with atomic_write(folder / REPORT) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return [folder / REPORT, folder / PICTURES]


def picture_miou(record: Record, benchmark: Benchmark, variant: str) -> float:
    """Mean IoU over the classes of one picture; NaN where nothing is counted."""
    filled: ConfusionMatrix = matrix_of([record], variant, benchmark.num_labels, benchmark.ignore)
    return filled.miou


def _published(job: Job, miou: float | None) -> dict[str, Any] | None:
    """The published number of the preset beside ours, in percent, and all that was done otherwise than published.

    Args:
        job: what was evaluated.
        miou: None if not the whole benchmark was.
    """
    if job.preset is None:
        return None
    preset, variant = load_preset(job.preset), job.variants[0]
    value = preset.published.get("miou_unrefined" if variant.refiner is None else "miou")
    if value is None:
        return None
    logged = None if variant.refiner is None else preset.published.get("miou_logged")
    ours, old = variant.settings.to_dict(), preset.settings.to_dict()
    changed = [f"{key} {ours[key]}" for key in sorted(ours) if ours[key] != old[key]]
    if job.model.casefold() != preset.model.casefold():
        changed.append(f"model {job.model}")
    if variant.refiner not in (None, preset.refiner):
        changed.append(f"refiner {variant.refiner}")
    if job.dtype not in (None, "float32"):
        changed.append(f"dtype {job.dtype}")

    def difference(published: float | None) -> float | None:
        return None if miou is None or published is None else round(100 * miou - published, 2)

    return {
        "miou_percent": value,
        "difference_percent": difference(value),
        "logged_miou_percent": logged,
        "logged_difference_percent": difference(logged),
        "changed": changed,
    }


def _folders(job: Job) -> dict[str, str | None]:
    if isinstance(job.data, str):
        return {"root": str(job.root)}
    return {"images": str(job.data.images), "masks": str(job.data.masks)}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)
