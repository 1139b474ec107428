"""``cliper segment`` as a person runs it: files, words, exit codes, and every flag."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cliper
from cliper.checkpoints import recommended_settings, resolve
from cliper.errors import CliperError
from cliper.formats import read_label_png, read_npz
from cliper.settings import Settings, load_preset

CLASSES = "dog; green grass; person: man, woman"


def labels_of(path: Path) -> np.ndarray:
    return read_label_png(path)


# --- what is written and said ----------------------------------------------------------------------------


def test_a_picture_and_words_give_a_label_map(
    command: Any, own_tiny: Any, clip_folder: Path, photo: Path, tmp_path: Path, tree: Any
) -> None:
    out = tmp_path / "out"
    ended = command("segment", photo, "-c", CLASSES, "-m", clip_folder, "-o", out)
    assert (ended.code, ended.err) == (0, "")
    assert tree(out) == ["photo.labels.png", "photo.overlay.png"]
    result = own_tiny(photo, CLASSES)
    assert np.array_equal(labels_of(out / "photo.labels.png"), result.labels)
    with Image.open(out / "photo.overlay.png") as overlay:
        assert np.array_equal(np.asarray(overlay), np.asarray(result.overlay()))
    lines = ended.out.splitlines()
    assert lines[0] == f"model: {clip_folder}"
    assert f"{photo}  96x64, " in ended.out
    for name in result.classes:
        (line,) = [line for line in lines if line.startswith(name)]
        assert f"{result.areas[name]:.1%}" in line
    shares = [float(line.split("%")[0].split()[-1]) for line in lines if "%" in line]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    assert lines[-2:] == [f"wrote {out / 'photo.labels.png'}", f"wrote {out / 'photo.overlay.png'}"]


def test_the_example_needs_no_words(command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: Any) -> None:
    monkeypatch.chdir(tmp_path)
    ended = command("segment", "--example")
    assert (ended.code, ended.err) == (0, "")
    assert tree(tmp_path) == ["horses.labels.png", "horses.overlay.png"]
    # It says which model spoke, and what that is not.
    assert ended.out.startswith("model: CLIPer mini (ViT-S/14, bundled).")
    assert "it is not OpenAI's CLIP" in ended.out.splitlines()[0]
    share = float(next(line for line in ended.out.splitlines() if line.startswith("horse")).split()[1].rstrip("%"))
    assert 10 < share < 30
    with Image.open(cliper.example_photo()) as picture:
        assert labels_of(tmp_path / "horses.labels.png").shape == (picture.height, picture.width)


def test_the_summary_as_json(command: Any, own_tiny: Any, clip_folder: Path, photo: Path, tmp_path: Path) -> None:
    other = tmp_path / "ünï\ncode.png"
    photo.rename(other)
    ended = command("segment", other, "-c", "naïve dog; 犬", "-m", clip_folder, "-o", tmp_path, "--json", "--scores")
    assert (ended.code, ended.err) == (0, "")
    (line,) = ended.out.splitlines()
    summary = json.loads(line)
    result = own_tiny(other, "naïve dog; 犬")
    assert list(summary) == ["input", "outputs", "model", "refiner", "seconds", "areas", "confidence"]
    assert summary["input"] == str(other)
    assert [Path(file).name for file in summary["outputs"]] == [
        f"ünï\ncode.{end}" for end in ("labels.png", "overlay.png", "npz")
    ]
    assert all(Path(file).is_file() for file in summary["outputs"])
    assert summary["areas"] == result.areas
    assert summary["confidence"] == {n: float(c) for n, c in zip(result.classes, result.confidence, strict=True)}
    assert (summary["model"], summary["refiner"]) == (str(clip_folder), None)
    saved = read_npz(summary["outputs"][2])
    assert np.array_equal(saved.scores, result.scores)


def test_no_overlay(command: Any, clip_folder: Path, photo: Path, tmp_path: Path, tree: Any) -> None:
    out = tmp_path / "a" / "b"
    assert command("segment", photo, "-c", "dog", "-m", clip_folder, "-o", out, "--no-overlay").code == 0
    assert tree(out) == ["photo.labels.png"]


def test_classes_from_everywhere(command: Any, own_tiny: Any, clip_folder: Path, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("# some\nperson: man, woman\n")
    arguments = ["segment", photo, "-m", clip_folder, "-o", tmp_path]
    ended = command(
        *arguments, "-c", "dog", "--classes", "green grass", "--classes-file", tmp_path / "classes.txt", "--json"
    )
    assert list(json.loads(ended.out)["areas"]) == ["dog", "green grass", "person"]
    assert np.array_equal(labels_of(tmp_path / "photo.labels.png"), own_tiny(photo, CLASSES).labels)
    ended = command(*arguments, "--classes-file", tmp_path / "classes.txt", "--json")
    assert list(json.loads(ended.out)["areas"]) == ["person"]


@pytest.mark.parametrize(
    ("flags", "background"),
    [
        ([], "auto"),
        (["-b", "auto"], "auto"),
        (["-b", " AUTO "], "auto"),
        (["-b", "none"], None),
        (["-b", "wall; sky"], ["wall", "sky"]),
        (["-b", "wall", "--background", "sky"], ["wall", "sky"]),
    ],
)
def test_background(
    command: Any, own_tiny: Any, clip_folder: Path, photo: Path, tmp_path: Path, flags: list[str], background: Any
) -> None:
    ended = command("segment", photo, "-c", CLASSES, "-m", clip_folder, "-o", tmp_path, *flags)
    assert ended.code == 0
    expected = own_tiny(photo, CLASSES, background=background)
    assert np.array_equal(labels_of(tmp_path / "photo.labels.png"), expected.labels)


def test_many_pictures(
    command: Any, clip_folder: Path, tmp_path: Path, make_picture: Callable[..., Image.Image], tree: Any
) -> None:
    for index in range(3):
        make_picture(64 + 16 * index, 64, seed=index).save(tmp_path / f"p{index}.png")
    pictures = [tmp_path / f"p{index}.png" for index in range(3)]
    out = tmp_path / "out"
    ended = command("segment", *pictures, "-c", "dog", "-m", clip_folder, "-o", out, "--json", "--no-overlay")
    assert [json.loads(line)["input"] for line in ended.out.splitlines()] == [str(p) for p in pictures]
    assert tree(out) == [f"p{index}.labels.png" for index in range(3)]
    assert [labels_of(out / f"p{index}.labels.png").shape[1] for index in range(3)] == [64, 80, 96]


def test_class_names_cannot_paint_the_terminal(command: Any, clip_folder: Path, photo: Path, tmp_path: Path) -> None:
    ended = command("segment", photo, "-c", "[bold]dog[/bold]; cat\x1b[31m", "-m", clip_folder, "-o", tmp_path)
    assert ended.code == 0
    assert "[bold]dog[/bold]" in ended.out
    assert "\x1b" not in ended.out


# --- settings --------------------------------------------------------------------------------------------

# Setting -> (flags, the value they mean), for every field; none of these is the default or the preset's.
FLAGS: dict[str, tuple[list[str], Any]] = {
    "recipe": (["--recipe", "preprint"], "preprint"),
    "size": (["--size", "80"], 80),
    "scale": (["--scale", "7.5"], 7.5),
    "threshold": (["--threshold", "0"], 0.0),
    "select_layer": (["--select-layer", "-2"], -2),
    "window": (["--window", "32"], 32),
    "attention": (["--attention", "k-k"], "k-k"),
    "proxy_model": (["--proxy-model", "dino-s16"], "dino-s16"),
    "fuse_features": (["--no-fuse-features"], False),
    "score": (["--score", "0"], 0.0),
    "background": (["--background-threshold", "0"], 0.0),
    "normalize": (["--no-normalize"], False),
    "templates": (["--templates", "imagenet80"], "imagenet80"),
    "refine_threshold": (["--refine-threshold", "0"], 0.0),
    "refine_mode": (["--refine-mode", "mean"], "mean"),
    "refine_map": (["--refine-map", "3"], 3),
    "refine_layers": (["--refine-layer", "a.b", "--refine-layer", "c"], ("a.b", "c")),
    "refine_size": (["--refine-size", "448x512"], (448, 512)),
    "refine_max_patches": (["--refine-max-patches", "900"], 900),
    "refine_resize": (["--refine-resize", "area"], "area"),
    "refine_step": (["--refine-step", "0"], 0),
}


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the command line hands to ``Segmenter.from_pretrained``, which then stops."""
    seen: list[dict[str, Any]] = []

    def stop(model: Any, **options: Any) -> None:
        seen.append({"model": model, **options})
        raise CliperError("seen enough")

    monkeypatch.setattr("cliper.segmenter.Segmenter.from_pretrained", stop)
    return seen


def test_every_setting_has_a_flag() -> None:
    assert list(FLAGS) == [field.name for field in dataclasses.fields(Settings)]


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_reaches_the_settings_and_nothing_else_changes(
    command: Any, loaded: list[dict[str, Any]], clip_folder: Path, name: str
) -> None:
    flags, value = FLAGS[name]
    ended = command("segment", "--example", "-m", clip_folder, *flags)
    assert (ended.code, ended.err) == (2, "cliper: error: seen enough\n")
    recommended = Settings(size=64, scale=30, score=0.05, background=0.3, templates=("a photo of a {}.",))
    assert getattr(recommended, name) != value
    assert loaded[0]["settings"] == recommended.replace(**{name: value})


def test_flags_that_say_yes(command: Any, loaded: list[dict[str, Any]], clip_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("normalize: no\nfuse_features: no")
    arguments = ["segment", "--example", "-m", clip_folder, "-s", tmp_path / "own.yaml"]
    command(*arguments, "--normalize", "--fuse-features", "--refine-size", "512")
    assert loaded[0]["settings"].normalize is True
    assert loaded[0]["settings"].fuse_features is True
    assert loaded[0]["settings"].refine_size == 512


def test_preset_below_file_below_flag(
    command: Any, loaded: list[dict[str, Any]], clip_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("size: 96\nscale: 5\n")
    arguments = ["segment", "--example", "-m", clip_folder]
    recommended = Settings(size=64, scale=30, score=0.05, background=0.3, templates=("a photo of a {}.",))
    command(*arguments)
    assert loaded[-1]["settings"] == recommended  # what the checkpoint recommends
    command(*arguments, "-s", "vit-l-14/cityscapes")
    assert loaded[-1]["settings"] == load_preset("vit-l-14/cityscapes").settings
    command(*arguments, "-s", "vit-l-14/cityscapes", "--size", "336")
    assert loaded[-1]["settings"] == load_preset("vit-l-14/cityscapes").settings.replace(size=336)
    command(*arguments, "--settings", path)
    assert loaded[-1]["settings"] == recommended.replace(size=96, scale=5)
    command(*arguments, "--settings", path, "--scale", "6")
    assert loaded[-1]["settings"] == recommended.replace(size=96, scale=6)


def test_the_other_flags_of_the_model(command: Any, loaded: list[dict[str, Any]]) -> None:
    command("segment", "--example")
    command("segment", "--example", "-r", "none", "--device", "cpu", "--dtype", "bfloat16", "--seed", "7")
    command("segment", "--example", "--refiner", "sd2.1")
    recommended = recommended_settings(resolve("mini", "clip"))
    nothing = {"model": "mini", "refiner": None, "settings": recommended, "device": None, "dtype": None, "seed": 0}
    assert loaded[0] == nothing
    assert loaded[1] == {**nothing, "device": "cpu", "dtype": "bfloat16", "seed": 7}
    assert loaded[2] == {**nothing, "refiner": "sd2.1"}


def test_settings_change_what_is_written(
    command: Any, own_tiny: Any, clip_folder: Path, photo: Path, tmp_path: Path
) -> None:
    flags = ["--attention", "identity", "--size", "96", "--no-normalize", "--background-threshold", "0.1"]
    assert command("segment", photo, "-c", CLASSES, "-m", clip_folder, "-o", tmp_path, *flags).code == 0
    settings = own_tiny.settings.replace(attention="identity", size=96, normalize=False, background=0.1)
    expected = own_tiny.with_settings(settings)(photo, CLASSES).labels
    assert np.array_equal(labels_of(tmp_path / "photo.labels.png"), expected)
    assert not np.array_equal(expected, own_tiny(photo, CLASSES).labels)


# --- in a process of its own -----------------------------------------------------------------------------


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cliper", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        text=True,
        # A background job of a shell is born deaf to it, and so would be what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )


def test_as_a_module_and_by_its_name(tmp_path: Path, clip_folder: Path, photo: Path, tree: Any) -> None:
    # A name that is no text, as old disks have them.
    name = os.fsdecode(b"caf\xe9.png")
    photo.rename(tmp_path / name)
    surroundings = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    arguments = ["segment", name, "-c", CLASSES, "-m", clip_folder, "-o", "out"]
    process = start(*arguments, cwd=tmp_path, env=surroundings)
    out, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert len(tree(tmp_path / "out")) == 2
    assert "caf\\udce9.png  96x64" in out
    shown = subprocess.run(
        [Path(sys.executable).with_name("cliper"), "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert shown.stdout == f"cliper, version {cliper.__version__}\n"


def test_interrupted_between_pictures(
    tmp_path: Path, clip_folder: Path, make_picture: Callable[..., Image.Image], tree: Any
) -> None:
    make_picture(160, 160).save(tmp_path / "p.png")
    pictures = [tmp_path / f"p{index:04}.png" for index in range(1000)]
    for path in pictures:
        path.hardlink_to(tmp_path / "p.png")
    out = tmp_path / "out"
    process = start("segment", *pictures, "-c", "dog", "-m", clip_folder, "-o", out, "--json", cwd=tmp_path)
    assert process.stdout is not None
    first = process.stdout.readline()
    assert json.loads(first)["input"] == str(pictures[0])
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip() == "cliper: interrupted; files that were finished are whole"
    done = tree(out)
    assert 1 <= len(done) < 2000
    for file in done:
        assert not file.startswith(".")
        with Image.open(out / file) as written:
            written.load()


def test_whoever_reads_the_output_has_gone(tmp_path: Path, clip_folder: Path, photo: Path) -> None:
    reader, writer = os.pipe()
    process = start("segment", photo, "-c", "dog", "-m", clip_folder, "-o", tmp_path / "out", stdout=writer)
    os.close(writer)
    os.close(reader)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_the_output_goes_to_a_full_disk(tmp_path: Path, clip_folder: Path, photo: Path, tree: Any) -> None:
    with Path("/dev/full").open("w") as full:
        process = start("segment", photo, "-c", "dog", "-m", clip_folder, "-o", tmp_path / "out", stdout=full)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert errors == "cliper: error: the system refused: No space left on device\n"
    assert tree(tmp_path / "out") == []
