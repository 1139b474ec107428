"""What a report says of its number: whether it is the whole benchmark, and how it compares with the published one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cliper.cli.tables import print_report
from cliper.evaluation.report import make_report
from cliper.evaluation.task import EvaluationTask, Variant
from cliper.runner.manifest import Record
from cliper.runner.run import EngineStats
from cliper.settings import load_preset

CONFIG = {
    "model": {},
    "refiners": {},
    "device": "cpu",
    "dtype": "float32",
    "refiner_dtype": "float32",
    "classes": [],
    "background": [],
    "proxy_models": {},
}
PRESET = load_preset("vit-b-16/context59")
TASK = EvaluationTask(
    "context59", Path("data"), "ViT-B/16", (Variant("", PRESET.settings, "sd2.1"),), preset=PRESET.name
)


def report(task: EvaluationTask, images: int, skipped: int = 0) -> dict[str, Any]:
    """Of images with one pixel right and one wrong."""
    counts = {"counts": {"": [1, 1, 1, 1, 2, 1]}}
    records = [Record(str(i), seconds=0.5, details=counts) for i in range(images)]
    records += [Record.failed(f"bad {i}", "broken") for i in range(skipped)]
    return make_report(task, CONFIG, records, EngineStats(1, 1), images)


@pytest.mark.parametrize(
    ("pictures", "skipped", "limit", "complete"),
    [
        (5104, 0, None, True),
        (5105, 0, None, True),
        (5103, 0, None, False),
        (5104, 1, None, False),  # a picture of 5105 is missing
        (5104, 0, 5104, False),
    ],
)
def test_only_the_whole_benchmark_is_whole(pictures: int, skipped: int, limit: int | None, complete: bool) -> None:
    made = report(replace(TASK, limit=limit), pictures, skipped)
    assert made["complete"] is complete
    assert (made["images"], made["skipped"]) == (pictures, skipped)
    difference = made["published"]["difference_percent"]
    assert difference == (round(50 - 41.6, 2) if complete else None)


@pytest.mark.parametrize(
    ("changes", "published", "said"),
    [
        ({}, 41.6, []),
        ({"variants": (Variant("", PRESET.settings),)}, 38.4, []),  # published without compensation
        ({"variants": (Variant("", PRESET.settings, "self"),)}, 41.6, ["refiner self"]),
        ({"variants": (Variant("", PRESET.settings.replace(logit_scale=50), "sd2.1"),)}, 41.6, ["logit_scale 50.0"]),
        ({"model": "a/folder"}, 41.6, ["model a/folder"]),
        ({"dtype": "bfloat16"}, 41.6, ["dtype bfloat16"]),
    ],
)
def test_what_was_done_otherwise_than_published_is_said(
    changes: dict[str, Any], published: float, said: list[str]
) -> None:
    made = report(replace(TASK, **changes), 5104)["published"]
    assert (made["miou_percent"], made["changed"]) == (published, said)


def test_without_a_preset_nothing_is_compared() -> None:
    assert report(replace(TASK, preset=None), 5104)["published"] is None


PREPRINT = load_preset("vit-b-16/context59-preprint")
PREPRINT_TASK = replace(TASK, variants=(Variant("", PREPRINT.settings, "sd2.1"),), preset=PREPRINT.name)


def test_a_preprint_preset_is_compared_with_its_log_too(capsys: pytest.CaptureFixture[str]) -> None:
    made = report(PREPRINT_TASK, 5104)
    assert made["published"] == {
        "miou_percent": 41.7,
        "difference_percent": 8.3,
        "logged_miou_percent": 41.702,
        "logged_difference_percent": 8.3,
        "changed": [],
    }
    print_report(made)
    assert "published 41.7 (logged 41.702), difference +8.3 (logged +8.30)\n" in capsys.readouterr().out


def test_a_log_is_of_a_run_with_its_refiner() -> None:
    """The preprint has no number without one, so nothing is compared."""
    assert report(replace(PREPRINT_TASK, variants=(Variant("", PREPRINT.settings),)), 5104)["published"] is None


def test_of_a_part_of_the_benchmark_no_difference_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    made = report(replace(PREPRINT_TASK, limit=3), 3)
    assert made["published"]["logged_difference_percent"] is None
    print_report(made)
    assert "published 41.7 (logged 41.702)\n" in capsys.readouterr().out
