"""``cliper batch --choose-templates``: the templates of the run, and its images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cliper.formats import read_label_png
from cliper.prompts import parse_classes
from cliper.template_selection import choose_templates
from runs import CLASSES, statuses

TEMPLATES = ["a photo of a {}.", "{}", "the {} in an old drawing", "a small {} and other things"]


@pytest.fixture
def templates_file(tmp_path: Path) -> Path:
    path = tmp_path / "templates.yaml"
    path.write_text(yaml.safe_dump({"templates": TEMPLATES}))
    return path


def test_chosen_templates_are_those_of_the_run(
    batch: Any, photos: Path, tmp_path: Path, own_tiny: Any, templates_file: Path
) -> None:
    flags = ("-f", "labels", "-s", templates_file, "--choose-templates", 2)
    ended = batch(photos, *flags)
    assert (ended.code, ended.err) == (0, "")
    segmenter = own_tiny.with_settings(own_tiny.settings.replace(templates=TEMPLATES))
    first = sorted(path for path in photos.iterdir() if path.is_file())
    found = {line["input"]: line for line in map(json.loads, (tmp_path / "out" / "manifest.jsonl").open())}
    names = list(found)[:2]
    features = [segmenter.encode_image(photos / name).views[0] for name in names]
    kept = choose_templates(segmenter, features, parse_classes(CLASSES), "auto")
    assert 0 < len(kept) < len(TEMPLATES)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["config"]["settings"]["templates"] == list(kept)
    assert f"templates: {len(kept)} of 4 are kept: {'; '.join(kept)}" in ended.out.splitlines()
    chosen = own_tiny.with_settings(own_tiny.settings.replace(templates=kept))
    for path in first:
        labels = read_label_png(tmp_path / "out" / f"{path.stem}.labels.png")
        assert np.array_equal(labels, chosen(path, CLASSES).labels)
    ended = batch(photos, *flags, "--resume")
    assert (ended.code, ended.err) == (0, "")
    assert set(statuses(tmp_path / "out").values()) == {"done"}


def test_views_and_windows_do_not_change_the_choice(
    batch: Any, photos: Path, tmp_path: Path, own_tiny: Any, templates_file: Path
) -> None:
    """An extra size at which no image can be encoded fails the images of the run, not the choice."""
    flags = ("--choose-templates", 1, "--flip", "--window", 112, "--extra-size", 4096)
    assert batch(photos, "-f", "labels", "-s", templates_file, *flags).code == 1
    assert set(statuses(tmp_path / "out").values()) == {"failed"}
    segmenter = own_tiny.with_settings(own_tiny.settings.replace(templates=TEMPLATES))
    name = min(json.loads(line)["input"] for line in (tmp_path / "out" / "manifest.jsonl").open())
    kept = choose_templates(segmenter, [segmenter.encode_image(photos / name).views[0]], parse_classes(CLASSES), "auto")
    assert json.loads((tmp_path / "out" / "run.json").read_text())["config"]["settings"]["templates"] == list(kept)


def test_images_that_cannot_be_used_are_left_out_of_the_choice(
    batch: Any, photos: Path, tmp_path: Path, templates_file: Path
) -> None:
    (photos / "a.png").write_bytes(b"no image")
    ended = batch(photos, "-f", "labels", "-s", templates_file, "--choose-templates", 2)
    assert ended.code == 1
    ended = batch(photos, "-s", templates_file, "--choose-templates", 1, out=tmp_path / "other")
    assert ended.code == 2
    assert "expected at least one image to choose templates on, got none" in ended.err
    assert not (tmp_path / "other").exists()
