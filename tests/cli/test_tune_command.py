"""``cliper tune`` on a few images, and its file in other commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cliper.settings import load_settings
from dataset_trees.own import own_data


@pytest.fixture
def data(tmp_path: Path, make_image: Any) -> tuple[object, ...]:
    """Five images with masks of dog and grass."""
    own_data(tmp_path, 5, make_image)
    return ("--images", tmp_path / "images", "--masks", tmp_path / "masks")


@pytest.mark.full
def test_tuned_settings_are_used_by_the_other_commands(
    command: Any, clip_folder: Path, data: tuple[object, ...], tmp_path: Path
) -> None:
    file, classes = tmp_path / "tuned.yaml", ("--classes-file", tmp_path / "classes.txt")
    ended = command("tune", *data, *classes, "-m", clip_folder, "-o", file, "--folds", 2, "-b", "wall; sky")
    assert ended.code == 0, ended.err
    assert ended.err.splitlines()[-3:] == ["cliper: fold 1 of 2", "cliper: fold 2 of 2", "cliper: all images"]
    assert [line.split()[0] for line in ended.out.splitlines()[2:7]] == ["class", "background", "dog", "grass", "mIoU"]
    assert f"wrote {file}" in ended.out
    head = file.read_text().splitlines()[:3]
    assert head[0].startswith("# Settings ")
    assert " on 5 images, 20" in head[0]
    assert head[1].startswith("# Model ")
    assert head[2].startswith("# mIoU by 2-fold cross-validation: ")
    content = yaml.safe_load(file.read_text())
    assert content["classes"] == ["dog", "grass: green grass, lawn"]
    settings = load_settings(file)
    # Evaluated with the file, no options for words are needed, and the report has what the file says.
    ended = command("evaluate", *data, "-m", clip_folder, "-s", file, "-o", tmp_path / "report")
    assert ended.code == 0, ended.err
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["settings"] == settings.to_dict()
    assert report["classes"] == [["dog", "dog"], ["grass", "green grass", "lawn"]]
    ended = command("batch", tmp_path / "images", "-m", clip_folder, "-s", file, "-o", tmp_path / "out")
    assert ended.code == 0, ended.err
    assert (tmp_path / "out" / "a" / "000.labels.png").is_file()


@pytest.mark.full
def test_templates_are_all_or_those_of_low_entropy(
    command: Any, clip_folder: Path, data: tuple[object, ...], tmp_path: Path
) -> None:
    templates = ["a photo of a {}.", "{}", "the {} in an old drawing"]
    (tmp_path / "given.yaml").write_text(yaml.safe_dump({"templates": templates, "background_count": 4}))
    words = ("--classes-file", tmp_path / "classes.txt", "-s", tmp_path / "given.yaml")
    file = tmp_path / "tuned.yaml"
    ended = command("tune", *data, *words, "-m", clip_folder, "-o", file, "--folds", 2, "--choose-templates")
    assert ended.code == 0, ended.err
    content = yaml.safe_load(file.read_text())
    assert set(content["templates"]) <= set(templates)
    assert ("templates: " in ended.out) == (content["templates"] != templates)
    assert content["background_count"] == 4


@pytest.mark.full
def test_given_settings_are_written_where_tuning_does_not_help(
    command: Any, clip_folder: Path, data: tuple[object, ...], tmp_path: Path
) -> None:
    # The ground truth is what the given settings predict: nothing can be better.
    file, classes = tmp_path / "tuned.yml", ("--classes-file", tmp_path / "classes.txt")
    model = ("-m", clip_folder, "--logit-scale", 29, "--score-threshold", 0, "-b", "none")
    assert command("batch", tmp_path / "images", *classes, *model, "-f", "labels", "-o", tmp_path / "masks").code == 0
    for path in (tmp_path / "masks").rglob("*.labels.png"):
        path.replace(path.with_name(path.name.replace(".labels", "")))
    ended = command("tune", *data, *classes, *model, "-o", file, "--folds", 2)
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[6].split() == ["mIoU", "100.0", "100.0", "+0.0"]
    assert "tuning does not help on these images: the given settings are kept" in ended.out
    assert file.read_text().startswith("# Settings as given")
    assert load_settings(file).logit_scale == 29


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda root: None, "--out: expected a name ending in .yaml, got "),
        (lambda root: [path.unlink() for path in (root / "images").rglob("*.jpg")], "expected images below "),
        (lambda root: [path.unlink() for path in (root / "masks").rglob("*.png")], "expected masks below "),
        (lambda root: (root / "masks" / "a" / "002.png").unlink(), "got nothing there"),
        (lambda root: (root / "classes.txt").write_text("dog\n"), "expected labels 0 to 1 or 255, got 2"),
        (lambda root: (root / "classes.txt").write_text("dog\ngrass\ncat\n"), "got none with cat"),
        (lambda root: (root / "classes.txt").unlink(), "could not read the class file"),
    ],
    ids=["name", "images", "masks", "mask", "label", "class", "classes"],
)
def test_bad_data_is_one_line(
    command: Any, clip_folder: Path, data: tuple[object, ...], tmp_path: Path, spoil: Callable[[Path], Any], words: str
) -> None:
    spoil(tmp_path)
    file = tmp_path / ("tuned.txt" if "--out" in words else "tuned.yaml")
    arguments = ("tune", *data, "--classes-file", tmp_path / "classes.txt", "-m", clip_folder, "-o", file)
    ended = command(*arguments)
    assert ended.code == 2
    lines = [line for line in ended.err.splitlines() if not line.startswith("cliper: image ")]
    assert len(lines) == 1
    assert words.casefold() in lines[0].casefold()
    assert not file.exists()
