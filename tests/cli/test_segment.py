"""``cliper segment``: its files, its output, and every option."""

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
from runs import said, start

CLASSES = "dog; green grass; person: man, woman"


def labels_of(path: Path) -> np.ndarray:
    return read_label_png(path)


# --- files and output ----------------------------------------------------------------------------


def test_label_map_and_overlay_are_written(
    command: Any, own_tiny: Any, clip_folder: Path, photo: Path, tmp_path: Path, tree: Any
) -> None:
    out = tmp_path / "out"
    ended = command("segment", photo, "-c", CLASSES, "-m", clip_folder, "-o", out)
    assert (ended.code, ended.err) == (0, "")
    assert tree(out) == ["classes.txt", "photo.labels.png", "photo.overlay.png"]
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
    assert lines[-3:] == [f"wrote {out / name}" for name in ("photo.labels.png", "photo.overlay.png", "classes.txt")]


def test_example_needs_no_classes(command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: Any) -> None:
    monkeypatch.chdir(tmp_path)
    ended = command("segment", "--example")
    assert (ended.code, ended.err) == (0, "")
    assert tree(tmp_path) == ["horses.labels.png", "horses.overlay.png"]
    # The first line names the model, and says that it is not the published one.
    assert ended.out.startswith("model: CLIPer mini (ViT-S/14, bundled).")
    assert "it is not OpenAI's CLIP" in ended.out.splitlines()[0]
    share = float(next(line for line in ended.out.splitlines() if line.startswith("horse")).split()[1].rstrip("%"))
    assert 10 < share < 30
    with Image.open(cliper.example_photo()) as image:
        assert labels_of(tmp_path / "horses.labels.png").shape == (image.height, image.width)


def test_json_summary(command: Any, own_tiny: Any, clip_folder: Path, photo: Path, tmp_path: Path) -> None:
    other = tmp_path / "ünï\ncode.png"
    photo.rename(other)
    ended = command("segment", other, "-c", "naïve dog; 犬", "-m", clip_folder, "-o", tmp_path, "--json", "--scores")
    assert (ended.code, ended.err) == (0, "")
    (line,) = ended.out.splitlines()
    summary = json.loads(line)
    result = own_tiny(other, "naïve dog; 犬")
    assert list(summary) == ["input", "outputs", "model", "refiner", "seconds", "areas", "confidence", "absent"]
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


def test_no_overlay_writes_labels_only(command: Any, clip_folder: Path, photo: Path, tmp_path: Path, tree: Any) -> None:
    out = tmp_path / "a" / "b"
    assert command("segment", photo, "-c", "dog", "-m", clip_folder, "-o", out, "--no-overlay").code == 0
    assert tree(out) == ["classes.txt", "photo.labels.png"]


def test_classes_of_options_and_file_are_joined(
    command: Any, own_tiny: Any, clip_folder: Path, photo: Path, tmp_path: Path
) -> None:
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
        (["-b", "wall, sky"], ["wall", "sky"]),
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


def test_several_images(
    command: Any, clip_folder: Path, tmp_path: Path, make_image: Callable[..., Image.Image], tree: Any
) -> None:
    for index in range(3):
        make_image(64 + 16 * index, 64, seed=index).save(tmp_path / f"p{index}.png")
    images = [tmp_path / f"p{index}.png" for index in range(3)]
    out = tmp_path / "out"
    ended = command("segment", *images, "-c", "dog", "-m", clip_folder, "-o", out, "--json", "--no-overlay")
    assert [json.loads(line)["input"] for line in ended.out.splitlines()] == [str(path) for path in images]
    assert tree(out) == ["classes.txt", *(f"p{index}.labels.png" for index in range(3))]
    assert [labels_of(out / f"p{index}.labels.png").shape[1] for index in range(3)] == [64, 80, 96]


def test_control_characters_of_class_names_are_escaped(
    command: Any, clip_folder: Path, photo: Path, tmp_path: Path
) -> None:
    ended = command("segment", photo, "-c", "[bold]dog[/bold]; cat\x1b[31m", "-m", clip_folder, "-o", tmp_path)
    assert ended.code == 0
    assert "[bold]dog[/bold]" in ended.out
    assert "\x1b" not in ended.out


# --- settings --------------------------------------------------------------------------------------------

# Field of Settings -> (options, the value they set); none is the default or the recommended value.
FLAGS: dict[str, tuple[list[str], Any]] = {
    "recipe": (["--recipe", "preprint"], "preprint"),
    "size": (["--size", "80"], 80),
    "logit_scale": (["--logit-scale", "7.5"], 7.5),
    "map_threshold": (["--map-threshold", "0"], 0.0),
    "select_layer": (["--select-layer", "-2"], -2),
    "extra_sizes": (["--extra-size", "80", "--extra-size", "96"], (80, 96)),
    "flip": (["--flip"], True),
    "window": (["--window", "32"], 32),
    "window_context": (["--window-context"], True),
    "attention": (["--attention", "k-k"], "k-k"),
    "proxy_model": (["--proxy-model", "dino-s16"], "dino-s16"),
    "fuse_features": (["--no-fuse-features"], False),
    "class_top": (["--class-top", "3"], 3),
    "class_min_score": (["--class-min-score", "0.1"], 0.1),
    "score_threshold": (["--score-threshold", "0"], 0.0),
    "background_threshold": (["--background-threshold", "0"], 0.0),
    "sensitivity": (["--sensitivity", "0.7"], 0.7),
    "background_similarity": (["--background-similarity", "0.5"], 0.5),
    "background_count": (["--background-count", "64"], 64),
    "normalize": (["--no-normalize"], False),
    "templates": (["--templates", "imagenet80"], "imagenet80"),
    "merge_synonyms": (["--merge-synonyms", "logsumexp"], "logsumexp"),
    "refine_threshold": (["--refine-threshold", "0"], 0.0),
    "refine_mode": (["--refine-mode", "mean"], "mean"),
    "refine_map_index": (["--refine-map-index", "3"], 3),
    "refine_layers": (["--refine-layer", "a.b", "--refine-layer", "c"], ("a.b", "c")),
    "refine_size": (["--refine-size", "448x512"], (448, 512)),
    "refine_max_patches": (["--refine-max-patches", "900"], 900),
    "refine_resize": (["--refine-resize", "area"], "area"),
    "refine_step": (["--refine-step", "0"], 0),
    "refine_noise": (["--no-refine-noise"], False),
    "refine_balance": (["--refine-balance", "15"], 15),
    "refine_vae": (["--refine-vae", "taesd"], "taesd"),
    "refine_propagation": (["--refine-propagation", "solve"], "solve"),
    "refine_neighbors": (["--refine-neighbors", "50"], 50),
    "refine_alpha": (["--refine-alpha", "0.5"], 0.5),
    "edge_weight": (["--edge-weight", "20"], 20.0),
    "edge_sigma": (["--edge-sigma", "0.2"], 0.2),
}


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Arguments of ``Segmenter.from_pretrained``, which then raises."""
    seen: list[dict[str, Any]] = []

    def stop(model: Any, **options: Any) -> None:
        seen.append({"model": model, **options})
        raise CliperError("not loaded")

    monkeypatch.setattr("cliper.segmenter.Segmenter.from_pretrained", stop)
    return seen


def test_every_setting_has_an_option() -> None:
    assert list(FLAGS) == [field.name for field in dataclasses.fields(Settings)]


@pytest.mark.parametrize("name", FLAGS)
def test_option_changes_its_setting_only(
    command: Any, loaded: list[dict[str, Any]], clip_folder: Path, name: str
) -> None:
    flags, value = FLAGS[name]
    ended = command("segment", "--example", "-m", clip_folder, *flags)
    assert (ended.code, ended.err) == (2, "cliper: error: not loaded\n")
    recommended = Settings.from_mapping(json.loads((clip_folder / "settings.json").read_text()))
    assert getattr(recommended, name) != value
    assert loaded[0]["settings"] == recommended.replace(**{name: value})


def test_positive_flags_override_a_file(
    command: Any, loaded: list[dict[str, Any]], clip_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.yaml").write_text("normalize: no\nfuse_features: no")
    arguments = ["segment", "--example", "-m", clip_folder, "-s", tmp_path / "own.yaml"]
    command(*arguments, "--normalize", "--fuse-features", "--refine-size", "512")
    assert loaded[0]["settings"].normalize is True
    assert loaded[0]["settings"].fuse_features is True
    assert loaded[0]["settings"].refine_size == 512


def test_settings_precedence_is_recommended_preset_file_option(
    command: Any, loaded: list[dict[str, Any]], clip_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("size: 96\nlogit_scale: 5\n")
    arguments = ["segment", "--example", "-m", clip_folder]
    recommended = Settings.from_mapping(json.loads((clip_folder / "settings.json").read_text()))
    command(*arguments)
    assert loaded[-1]["settings"] == recommended  # what the checkpoint recommends
    command(*arguments, "-s", "vit-l-14/cityscapes")
    assert loaded[-1]["settings"] == load_preset("vit-l-14/cityscapes").settings
    command(*arguments, "-s", "vit-l-14/cityscapes", "--size", "336")
    assert loaded[-1]["settings"] == load_preset("vit-l-14/cityscapes").settings.replace(size=336)
    command(*arguments, "--settings", path)
    assert loaded[-1]["settings"] == recommended.replace(size=96, logit_scale=5)
    command(*arguments, "--settings", path, "--logit-scale", "6")
    assert loaded[-1]["settings"] == recommended.replace(size=96, logit_scale=6)


def test_model_options_reach_from_pretrained(command: Any, loaded: list[dict[str, Any]]) -> None:
    command("segment", "--example")
    command("segment", "--example", "-r", "none", "--device", "cpu", "--dtype", "bfloat16", "--seed", "7")
    command("segment", "--example", "--refiner", "sd2.1")
    recommended = recommended_settings(resolve("mini", "clip"))
    nothing = {"model": "mini", "refiner": None, "settings": recommended, "device": None, "dtype": None, "seed": 0}
    assert loaded[0] == nothing
    assert loaded[1] == {**nothing, "device": "cpu", "dtype": "bfloat16", "seed": 7}
    assert loaded[2] == {**nothing, "refiner": "sd2.1"}


def test_settings_change_the_labels(
    command: Any, own_tiny: Any, clip_folder: Path, photo: Path, tmp_path: Path
) -> None:
    flags = ["--attention", "identity", "--size", "96", "--no-normalize", "--background-threshold", "0.1"]
    assert command("segment", photo, "-c", CLASSES, "-m", clip_folder, "-o", tmp_path, *flags).code == 0
    settings = own_tiny.settings.replace(attention="identity", size=96, normalize=False, background_threshold=0.1)
    expected = own_tiny.with_settings(settings)(photo, CLASSES).labels
    assert np.array_equal(labels_of(tmp_path / "photo.labels.png"), expected)
    assert not np.array_equal(expected, own_tiny(photo, CLASSES).labels)


# --- in a process of its own -----------------------------------------------------------------------------


@pytest.mark.full
def test_module_and_script_are_the_same_command(tmp_path: Path, clip_folder: Path, photo: Path, tree: Any) -> None:
    # A name that is not valid UTF-8.
    name = os.fsdecode(b"caf\xe9.png")
    photo.rename(tmp_path / name)
    surroundings = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    arguments = ["segment", name, "-c", CLASSES, "-m", clip_folder, "-o", "out"]
    process = start(*arguments, cwd=tmp_path, env=surroundings)
    out, errors = process.communicate(timeout=120)
    assert (process.returncode, said(errors)) == (0, [])
    assert len(tree(tmp_path / "out")) == 3  # labels, overlay, classes.txt
    assert "caf\\udce9.png  96x64" in out
    shown = subprocess.run(
        [Path(sys.executable).with_name("cliper"), "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert shown.stdout == f"cliper, version {cliper.__version__}\n"


@pytest.mark.full
def test_interrupted_run_leaves_complete_files_only(
    tmp_path: Path, clip_folder: Path, make_image: Callable[..., Image.Image], tree: Any
) -> None:
    make_image(160, 160).save(tmp_path / "p.png")
    images = [tmp_path / f"p{index:04}.png" for index in range(1000)]
    for path in images:
        path.hardlink_to(tmp_path / "p.png")
    out = tmp_path / "out"
    process = start("segment", *images, "-c", "dog", "-m", clip_folder, "-o", out, "--json", cwd=tmp_path)
    assert process.stdout is not None
    first = process.stdout.readline()
    assert json.loads(first)["input"] == str(images[0])
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said(errors) == ["cliper: interrupted; files written so far are complete"]
    done = tree(out)
    assert 1 <= len(done) < 2000
    for file in done:
        assert not file.startswith(".")
        with Image.open(out / file) as written:
            written.load()


@pytest.mark.full
def test_closed_pipe_exits_with_141_and_no_message(tmp_path: Path, clip_folder: Path, photo: Path) -> None:
    reader, writer = os.pipe()
    process = start("segment", photo, "-c", "dog", "-m", clip_folder, "-o", tmp_path / "out", stdout=writer)
    os.close(writer)
    os.close(reader)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, said(errors)) == (141, [])


@pytest.mark.full
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_standard_output_on_a_full_disk_is_one_line(tmp_path: Path, clip_folder: Path, photo: Path, tree: Any) -> None:
    with Path("/dev/full").open("w") as full:
        process = start("segment", photo, "-c", "dog", "-m", clip_folder, "-o", tmp_path / "out", stdout=full)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert said(errors) == ["cliper: error: the system refused: No space left on device"]
    assert tree(tmp_path / "out") == []
