"""Classes and background names in the file of ``--settings``; those of the command line take precedence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cliper.formats import read_label_png
from dataset_trees import build_tree
from dataset_trees.own import own_data


@pytest.fixture
def words_file(tmp_path: Path) -> Path:
    path = tmp_path / "words.yaml"
    path.write_text("logit_scale: 40\nclasses:\n- dog\n- person: man, woman\nbackground: [wall, sky]\n")
    return path


@pytest.fixture
def segment(command: Any, clip_folder: Path, photo: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run it with the flags; the summary."""

    def call(*flags: object) -> dict[str, Any]:
        ended = command("segment", photo, "-m", clip_folder, "-o", tmp_path / "out", "--json", *flags)
        assert ended.code == 0, ended.err
        found: dict[str, Any] = json.loads(ended.out)
        return found

    return call


def test_words_of_the_file_stand_in_for_those_of_the_command_line(
    segment: Any, own_tiny: Any, photo: Path, tmp_path: Path, words_file: Path
) -> None:
    own = own_tiny.with_settings(own_tiny.settings.replace(logit_scale=40))
    for flags, classes, background in (
        ((), "dog; person: man, woman", "wall; sky"),
        (("-c", "cat"), "cat", "wall; sky"),
        (("-b", "auto"), "dog; person: man, woman", "auto"),
        (("-c", "cat; dog", "-b", "none"), "cat; dog", None),
    ):
        summary = segment("-s", words_file, *flags)
        result = own(photo, classes, background)
        assert tuple(summary["areas"]) == result.classes
        assert np.array_equal(read_label_png(tmp_path / "out" / "photo.labels.png"), result.labels)


def test_words_that_cannot_be_used_are_refused_with_the_file(
    command: Any, clip_folder: Path, photo: Path, tmp_path: Path, words_file: Path
) -> None:
    for content, words in (
        ("classes: dog; dog", "class 'dog' is given twice"),
        ("classes: ' '", "expected at least one class"),
        ("classes: dog\nbackground: [auto, wall]", "background: expected auto or none alone"),
        ("classes: dog\nbackground: ['0.4']", "background: expected names of what else is in the images"),
        ("background: auto", "expected classes, got none"),
    ):
        words_file.write_text(content)
        ended = command("segment", photo, "-m", clip_folder, "-o", tmp_path / "out", "-s", words_file)
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert words in ended.err
        assert str(words_file) in ended.err or "got none" in ended.err


def test_evaluation_takes_the_words_for_own_data_but_not_for_a_benchmark(
    command: Any, clip_folder: Path, tmp_path: Path, make_image: Any, words_file: Path
) -> None:
    own_data(tmp_path, 2, make_image)
    data = ("--images", tmp_path / "images", "--masks", tmp_path / "masks")
    for flags, first in ((("-s", words_file), "dog"), (("-s", words_file, "--classes-file", "own.txt"), "cat")):
        (tmp_path / "own.txt").write_text("cat\nbird\n")
        flags = tuple(tmp_path / flag if flag == "own.txt" else flag for flag in flags)
        ended = command("evaluate", *data, "-m", clip_folder, "-o", tmp_path / first, *flags)
        assert (ended.code, ended.err) == (0, "")
        report = json.loads((tmp_path / first / "report.json").read_text())
        assert report["classes"][0] == [first, first]
        assert [name for name, *_ in report["background"]] == ["wall", "sky"]
    build_tree("voc21", tmp_path / "root")
    ended = command("evaluate", "voc21", "--data", tmp_path / "root", "-m", clip_folder, "-s", words_file, "--limit", 1)
    assert ended.code == 0
    assert ended.err == f"cliper: warning: classes and background of {words_file} are not used: voc21 has its own\n"
