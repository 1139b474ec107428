"""``cliper segment`` with standard input and output, with a file as ``--out``, and what people type by mistake."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliper.formats import read_label_png

CLASSES = "dog; grass"


@pytest.fixture
def expected(own_tiny: Any, photo: Path) -> np.ndarray:
    labels: np.ndarray = own_tiny(photo, CLASSES).labels
    return labels


def test_image_from_standard_input_and_labels_to_standard_output(
    command: Any, clip_folder: Path, photo: Path, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(photo.read_bytes())))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", SimpleNamespace(buffer=written, write=sys.stdout.write, flush=sys.stdout.flush))
        ended = command("segment", "-", "-c", CLASSES, "-m", clip_folder, "-o", "-")
    assert (ended.code, ended.err) == (0, "")
    with Image.open(written) as image:  # nothing but the PNG
        np.testing.assert_array_equal(np.asarray(image), expected)
        assert image.text["classes"] == '["dog", "grass"]'


def test_bad_standard_input_is_one_line(command: Any, clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"not an image")))
    ended = command("segment", "-", "-c", CLASSES, "-m", clip_folder, "-o", "-")
    assert ended.code == 1
    assert len(ended.err.splitlines()) == 1
    assert "the bytes" in ended.err


def test_result_of_one_image_is_written_to_a_file(
    command: Any, clip_folder: Path, photo: Path, expected: np.ndarray, tmp_path: Path, tree: Any
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert command("segment", photo, "-c", CLASSES, "-m", clip_folder, "-o", out / "a.png").code == 0
    assert command("segment", photo, "-c", CLASSES, "-m", clip_folder, "-o", out / "b.jpg", "-f", "overlay").code == 0
    assert tree(out) == ["a.png", "b.jpg"]
    np.testing.assert_array_equal(read_label_png(out / "a.png"), expected)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["a.jpg"], "labels are written as PNG"),
        (["a.png", "-f", "coco"], "cliper batch writes others"),
        (["a.png", "-f", "masks", "-f", "npz"], "expected a folder for 2 formats"),
        (["a.png", "-f", "npz"], "npz is written as npz, got"),
        (["a.png", "--scores"], "--scores: expected a folder, got a.png"),
        (["no/such/folder/a.png"], "expected a folder that can be written"),
    ],
)
def test_file_that_cannot_be_written_is_refused(
    command: Any, clip_folder: Path, photo: Path, flags: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photo.parent)
    ended = command("segment", photo, "-c", CLASSES, "-m", clip_folder, "-o", *flags)
    if "no/such" in flags[0]:
        assert ended.code == 0  # folders are made
        return
    assert ended.code == 2
    assert words in ended.err


def test_several_images_need_a_folder(command: Any, clip_folder: Path, photo: Path) -> None:
    ended = command("segment", photo, photo, "-c", CLASSES, "-m", clip_folder, "-o", "a.png")
    assert ended.code == 2
    assert "expected a folder for 2 images" in ended.err


def test_result_never_replaces_the_image(command: Any, clip_folder: Path, photo: Path) -> None:
    before = photo.read_bytes()
    ended = command("segment", photo, "-c", CLASSES, "-m", clip_folder, "-o", photo)
    assert ended.code == 2
    assert "is the image itself" in ended.err
    assert photo.read_bytes() == before


def test_folder_names_the_command_for_folders(command: Any, tmp_path: Path) -> None:
    ended = command("segment", tmp_path, "-c", CLASSES)
    assert ended.code == 2
    assert "cliper batch segments folders" in ended.err


def test_commas_separate_classes_with_a_notice(command: Any, clip_folder: Path, photo: Path, tmp_path: Path) -> None:
    words = ["-c", "dog, grass; person: man, woman", "-b", "wall, sky, sea"]
    ended = command("segment", photo, *words, "-m", clip_folder, "-o", tmp_path)
    assert ended.code == 0
    assert "'dog, grass' names 2 classes" in ended.err
    assert "'wall, sky, sea' names 3 background names" in ended.err
    for name in ("dog", "grass", "person"):
        assert any(line.startswith(name) for line in ended.out.splitlines())


def test_class_file_given_as_class_is_read_with_a_notice(
    command: Any, clip_folder: Path, photo: Path, tmp_path: Path
) -> None:
    names = tmp_path / "names.txt"
    names.write_text("dog, sitting\ncat\n", encoding="utf-8")
    ended = command("segment", photo, "-c", names, "-m", clip_folder, "-o", tmp_path)
    assert ended.code == 0
    assert f"reading the classes from the file {names}" in ended.err
    assert "dog, sitting" in ended.out  # a class in a file may be a phrase


def test_folder_named_by_out_gets_a_list_of_labels(
    command: Any, clip_folder: Path, photo: Path, tmp_path: Path, tree: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    flags = ["segment", photo, "-c", CLASSES, "-m", clip_folder]
    assert command(*flags, "-o", out, "--no-overlay").code == 0
    assert (out / "classes.txt").read_text(encoding="utf-8") == "0 background\n1 dog\n2 grass\n"
    ended = command(*flags, "-o", out, "-f", "masks", "-f", "overlay-jpg")  # again, and no labels
    assert ended.code == 0
    assert tree(out) == ["classes.txt", "photo.labels.png", "photo.masks.zip", "photo.overlay.jpg"]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert command(*flags).code == 0
    assert tree(tmp_path / "here") == ["photo.labels.png", "photo.overlay.png"]


def test_list_of_labels_never_replaces_another_file(
    command: Any, clip_folder: Path, photo: Path, tmp_path: Path
) -> None:
    names = tmp_path / "classes.txt"
    names.write_text("dog\n")
    ended = command("segment", photo, "--classes-file", names, "-m", clip_folder, "-o", tmp_path)
    assert ended.code == 0
    assert "is not a list of labels and stays as it is" in ended.err
    assert names.read_text() == "dog\n"


def test_grey_labels_are_what_every_reader_sees(
    command: Any, clip_folder: Path, photo: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    flags = ["segment", photo, "-c", CLASSES, "-m", clip_folder, "--label-mode", "grey", "-o", tmp_path / "a.png"]
    assert command(*flags).code == 0
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), expected)
