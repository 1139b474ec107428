"""Models that a command cannot use: damaged folders, unknown names, no network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runs import said


def missing_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def truncated_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def change_vision(folder: Path, name: str, value: int) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["vision_config"][name] = value
    path.write_text(json.dumps(config))


def more_layers_than_weights(folder: Path) -> None:
    change_vision(folder, "num_hidden_layers", 5)


def fewer_layers_than_weights(folder: Path) -> None:
    change_vision(folder, "num_hidden_layers", 1)


def weights_of_another_shape(folder: Path) -> None:
    change_vision(folder, "intermediate_size", 32)


def far_more_weights_than_files(folder: Path) -> None:
    """Loading would allocate 200 layers of 69 GB."""
    for name in ("hidden_size", "intermediate_size"):
        change_vision(folder, name, 65_536)
    change_vision(folder, "num_hidden_layers", 200)


def bad_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def bad_settings(folder: Path) -> None:
    (folder / "settings.json").write_text('{"treshold": 1}')


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def bad_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0"')


def an_empty_folder(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (missing_weights, "got no model.safetensors or"),
        (truncated_weights, "the weights cannot be read"),
        (more_layers_than_weights, "expected every weight that config.json describes: 32 tensors are missing: vision_"),
        (
            fewer_layers_than_weights,
            "the files have more layers than config.json, such as vision_model.encoder.layers.1.",
        ),
        (
            weights_of_another_shape,
            "vision_model.encoder.layers.0.mlp.fc1.bias: expected shape [32], got [",
        ),
        (far_more_weights_than_files, "weights, the files have"),
        (bad_config, "expected JSON"),
        (bad_settings, "unknown setting 'treshold'; did you mean 'map_threshold'?"),
        (no_tokenizer, "expected a tokenizer"),
        (bad_tokenizer, "could not read the tokenizer"),
        (an_empty_folder, "expected config.json"),
    ],
)
def test_broken_model_folder_is_refused(
    refused: Any, own_clip: Path, photo: Path, tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(own_clip)
    line = refused("segment", photo, "-c", "dog", "-m", own_clip, "-o", tmp_path / "out")
    assert str(own_clip) in line
    assert words in line


def test_unknown_model_is_refused(refused: Any, photo: Path, tmp_path: Path) -> None:
    arguments = ["segment", photo, "-c", "dog", "-o", tmp_path / "out"]
    assert "try ViT-B/16" in refused(*arguments, "-m", "ViT-B/61")
    assert "no such folder" in refused(*arguments, "-m", tmp_path / "no")
    assert "expected a CLIP checkpoint" in refused(*arguments, "-m", "sd2.1")
    assert "got a file" in refused(*arguments, "-m", photo)


@pytest.mark.full
def test_without_network_the_error_names_a_manual_download(tmp_path: Path, photo: Path, tree: Any) -> None:
    """In a process whose hub is a closed port."""
    surroundings = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "HF_HOME": str(tmp_path / "hub"),
        "HF_ENDPOINT": "http://127.0.0.1:9",
    }
    before = tree(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "cliper", "segment", photo, "-c", "dog", "-m", "ViT-B/16", "-o", tmp_path / "out"],
        capture_output=True,
        text=True,
        timeout=120,
        env=surroundings,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = said(done.stderr)
    assert line.startswith("cliper: error: ViT-B/16: could not download it (about 602 MB) from ")
    assert "no network (cannot connect to 127.0.0.1:9)" in line
    assert "`hf download openai/clip-vit-base-patch16 --local-dir DIR`, then give --model DIR" in line
    assert [name for name in tree(tmp_path) if not name.startswith("hub")] == list(before)
