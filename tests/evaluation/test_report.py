"""What a report says of its number: whether it is the whole benchmark, and how it compares with the published one."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cliper.cli.tables import print_report
from cliper.evaluation.report import make_report
from cliper.evaluation.task import EvaluationTask, Variant
from cliper.model_config import ModelConfig
from cliper.runner.manifest import Record
from cliper.runner.run import EngineStats
from cliper.settings import load_preset

PRESET = load_preset("vit-b-16/context59")
MODELS = ModelConfig("ViT-B/16", PRESET.settings, "sd2.1")


def task(preset: str | None = PRESET.name, limit: int | None = None, **changes: Any) -> EvaluationTask:
    folders = {"root": Path("data")}
    return EvaluationTask("context59", folders, (Variant("", replace(MODELS, **changes)),), limit, preset=preset)


def report(task: EvaluationTask, images: int = 5104, skipped: int = 0) -> dict[str, Any]:
    """Of images with one pixel right and one wrong."""
    counts = {"counts": {"": [1, 1, 1, 1, 2, 1]}}
    records = [Record(str(i), seconds=0.5, details=counts) for i in range(images)]
    records += [Record.failed(f"bad {i}", "broken") for i in range(skipped)]
    return make_report(task, defaultdict(dict), records, EngineStats(1, 1), images)


@pytest.mark.parametrize(
    ("images", "skipped", "limit", "complete"),
    [
        (5104, 0, None, True),
        (5105, 0, None, True),
        (5103, 0, None, False),
        (5104, 1, None, False),  # an image of 5105 is missing
        (5104, 0, 5104, False),
    ],
)
def test_only_a_whole_benchmark_is_complete(images: int, skipped: int, limit: int | None, complete: bool) -> None:
    made = report(task(limit=limit), images, skipped)
    assert made["complete"] is complete
    assert (made["images"], made["skipped"]) == (images, skipped)
    assert made["published"]["difference_percent"] == (round(50 - 41.6, 2) if complete else None)


@pytest.mark.parametrize(
    ("changes", "published", "said"),
    [
        ({}, 41.6, []),
        ({"refiner": None}, 38.4, []),  # published without compensation
        ({"refiner": "self"}, 41.6, ["refiner self"]),
        ({"settings": PRESET.settings.replace(logit_scale=50)}, 41.6, ["logit_scale 50.0"]),
        ({"model": "a/folder"}, 41.6, ["model a/folder"]),
        ({"dtype": "bfloat16"}, 41.6, ["dtype bfloat16"]),
    ],
)
def test_deviations_from_the_published_run(changes: dict[str, Any], published: float, said: list[str]) -> None:
    made = report(task(**changes))["published"]
    assert (made["miou_percent"], made["changed"]) == (published, said)


def test_preprint_is_compared_with_its_log_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(task(preset=None))["published"] is None
    preprint = load_preset("vit-b-16/context59-preprint")
    made = report(task(preprint.name, settings=preprint.settings))
    assert made["published"] == {
        "miou_percent": 41.7,
        "difference_percent": 8.3,
        "logged_miou_percent": 41.702,
        "logged_difference_percent": 8.3,
        "changed": [],
    }
    print_report(made)
    assert "published 41.7 (logged 41.702), difference +8.3 (logged +8.30)\n" in capsys.readouterr().out
    # Of a part of the benchmark no difference is given; without a refiner nothing was published.
    print_report(report(task(preprint.name, limit=3, settings=preprint.settings), 3))
    assert "published 41.7 (logged 41.702)\n" in capsys.readouterr().out
    assert report(task(preprint.name, settings=preprint.settings, refiner=None))["published"] is None
