"""The remote source of FiftyOne's model zoo, loaded by FiftyOne; its database is not needed for that."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cliper
from cliper.segmenter import Segmenter

SOURCE = Path(__file__).parents[2] / "integrations" / "fiftyone"


def test_manifest_lists_models_with_different_files() -> None:
    manifest = json.loads((SOURCE / "manifest.json").read_text(encoding="utf-8"))
    names = [model["base_name"] for model in manifest["models"]]
    assert names == ["cliper/mini", "cliper/ViT-B-16", "cliper/ViT-L-14"]
    assert len({model["base_filename"] for model in manifest["models"]}) == len(names)


@pytest.mark.full
def test_zoo_loads_the_model_and_samples_take_its_labels(
    run_script: Callable[..., Any], mini: Segmenter, tmp_path: Path
) -> None:
    found = run_script("load_fiftyone_model.py", SOURCE, cliper.example_photo())
    assert found["models"] == ["cliper/ViT-B-16", "cliper/ViT-L-14", "cliper/mini"]
    assert found["media_type"] == "image"
    assert found["mask_targets"] == {"1": "horse", "2": "grass"}
    assert Path(found["downloaded"]).read_text(encoding="utf-8") == "mini\n"
    pixels = np.asarray(cliper.images.load_image(cliper.example_photo()))
    with np.load(tmp_path / "labels.npz") as labels:
        for name, image in (("arr_0", pixels), ("arr_1", pixels.transpose(1, 0, 2))):
            expected = mini(image, "horse; grass: lawn, meadow").labels
            assert (labels[name] == expected).mean() > 0.999  # last bits differ with the number of threads
