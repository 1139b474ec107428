"""``examples/onnx_segment.py`` and the tokenizer in it, beside the package."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cliper

EXAMPLE = Path(__file__).parents[2] / "examples" / "onnx_segment.py"

# Share of pixels with the same label. Values differ in the last bits, and the refiner's image by the rounding of its
# resize to 256 levels, so pixels on the border of two classes may differ.
AGREEMENT = 0.999


def run_example(folder: Path, photo: Path, words: str, out: Path) -> np.ndarray:
    command = [sys.executable, EXAMPLE, folder, photo, words, out]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return np.array(Image.open(out))


@pytest.mark.parametrize("model", ["tiny", "mini"])
@pytest.mark.parametrize("refiner", [None, "self"])
def test_label_map_is_that_of_the_package(
    model: str,
    refiner: str | None,
    export_to: Callable[..., Path],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    make_image: Callable[..., Image.Image],
) -> None:
    segmenter = request.getfixturevalue(model).with_refiner(refiner)
    photo = cliper.example_photo() if model == "mini" else tmp_path / "photo.png"
    if model == "tiny":
        image = make_image(150, 100)
        image.putalpha(Image.linear_gradient("L").resize(image.size))  # transparent images are drawn on white
        image.save(photo)
    folder = export_to(model, refiner=refiner)
    found = set()
    for words in ("horse; dog", "Wooden Fences, isn't it?; sky; 3 naïve horses_and\u2013dogs", "horse"):
        labels = run_example(folder, photo, words, tmp_path / "labels.png")
        expected = segmenter(photo, words).labels
        assert (labels == expected).mean() >= AGREEMENT, words
        found |= set(np.unique(expected).tolist())
    assert len(found) > 1


def test_wrong_arguments_are_one_line_and_the_usage(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="exports need the extra export; make .venv-export installs it")
    (tmp_path / "image.onnx").touch()
    for arguments in ([], [tmp_path, tmp_path / "missing.jpg", "dog", tmp_path / "out.png"]):
        command = [sys.executable, EXAMPLE, *arguments]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 1
        first, second = done.stderr.splitlines()
        assert first.startswith("expected the folder of an export, an image")
        assert "python onnx_segment.py EXPORT photo.jpg" in second


def test_example_is_short_and_needs_few_packages() -> None:
    source = EXAMPLE.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 60
    assert "cliper" not in source.partition('"""\n')[2]


def test_config_describes_the_export(export_to: Callable[..., Path]) -> None:
    config = json.loads((export_to("mini") / "config.json").read_text())
    assert {
        "model",
        "target",
        "precision",
        "versions",
        "pixels",
        "sizes",
        "text",
        "background",
        "inputs",
        "labels",
    } == set(config)
