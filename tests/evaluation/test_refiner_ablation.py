"""``cliper evaluate --ablate-refiner``: a refiner with each of its options."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cliper.evaluation.refiner_ablation import refiner_variants
from cliper.model_config import ModelConfig
from cliper.settings import Settings


def test_options_of_self_are_measured_in_one_run(evaluate: Callable[..., Any], tmp_path: Path) -> None:
    refiner = ("--refiner", "self", "--refine-neighbors", "30")
    ended = evaluate(*refiner, "--ablate-refiner", out="all")
    assert (ended.code, ended.err) == (0, "")
    rows = json.loads((tmp_path / "all" / "report.json").read_text())["variants"]
    labels = ["none", "none, edges", "self", "self, edges", "self, solve", "self, solve, 50 neighbours"]
    assert [row["label"] for row in rows] == labels
    assert all(label in ended.out for label in labels)
    assert [row["settings"]["refine_neighbors"] for row in rows] == [30, 30, 30, 30, 30, 50]
    evaluate(*refiner, "--refine-propagation", "solve", out="alone")
    assert json.loads((tmp_path / "alone" / "report.json").read_text())["matrix"] == rows[4]["matrix"]


@pytest.mark.parametrize(("kind", "refiner"), [("none", None), ("dino", "dino-s16"), ("diffusion", "sd2.1")])
def test_variants_differ_and_begin_with_the_given_settings(kind: str, refiner: str | None) -> None:
    models = ModelConfig("mini", Settings(size=64), refiner)
    variants = refiner_variants(models, kind)
    assert [one.models.refiner for one in variants] == [None, None] + [refiner] * (len(variants) - 2)
    assert len({(one.models.refiner, one.models.settings) for one in variants}) == len(variants)
    assert len(variants) == {"none": 2, "dino": 6, "diffusion": 9}[kind]
    assert all(one.models.settings.size == 64 for one in variants)
    if refiner is not None:
        assert variants[2].models == models


def test_rows_are_with_and_without_what_they_name_whatever_the_settings_have() -> None:
    models = ModelConfig("mini", Settings(edge_weight=5, refine_vae="models/my vae"), "sd2.1")
    rows = {one.label: one.models.settings for one in refiner_variants(models, "diffusion")}
    assert {label for label, one in rows.items() if one.edge_weight} == {"none, edges", "sd2.1, edges"}
    assert {label: one.refine_vae for label, one in rows.items() if one.refine_vae != "full"} == {
        "sd2.1, tiny VAE": "models/my vae"
    }
    given = refiner_variants(ModelConfig("mini", Settings(), "sd2.1"), "diffusion")[-1]
    assert (given.label, given.models.settings.refine_vae) == ("sd2.1, tiny VAE", "taesd")


def test_both_ablations_are_refused(evaluate: Callable[..., Any]) -> None:
    ended = evaluate("--ablation", "--ablate-refiner")
    assert ended.code == 2
    assert "expected --ablation or --ablate-refiner, got both" in ended.err


def test_a_tiny_vae_is_not_looked_for_where_the_refiner_has_none(evaluate: Callable[..., Any], tmp_path: Path) -> None:
    assert evaluate("--refine-vae", tmp_path / "nothing", "--refiner", "self").code == 0
    ended = evaluate("--refine-vae", tmp_path / "nothing", "--refiner", "sd2.1", out="other")
    assert ended.code == 2
    assert not (tmp_path / "other" / "manifest.jsonl").exists()
