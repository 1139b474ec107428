"""``cliper batch`` writes data sets for training: images and masks, in pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliper.segmenter import Segmenter
from runs import CLASSES, records


@pytest.mark.parametrize(("name", "folder"), [("yolo-semantic", "masks"), ("hf-dataset", "labels")])
def test_each_image_has_a_copy_and_a_mask(
    name: str, folder: str, batch: Any, photos: Path, tmp_path: Path, own_tiny: Segmenter
) -> None:
    assert batch(photos, "-f", name, "--ignore-background").code == 0
    out = tmp_path / "out"
    lines = records(out)
    assert len(lines) == 12
    for line in lines[:3]:
        mask, copy = (Image.open(out / output) for output in line["outputs"])
        stem = line["input"].rpartition(".")[0]
        assert line["outputs"] == [f"{folder}/{stem}.png", f"images/{stem}.png"]
        result = own_tiny(photos / line["input"], CLASSES)
        np.testing.assert_array_equal(np.asarray(copy), np.asarray(result.image))
        np.testing.assert_array_equal(np.asarray(mask), (result.labels - 1).astype(np.uint8))  # -1 is 255


def test_a_run_with_other_background_is_not_resumed(batch: Any, photos: Path) -> None:
    assert batch(photos, "-f", "hf-dataset").code == 0
    ended = batch(photos, "-f", "hf-dataset", "--ignore-background", "--resume")
    assert ended.code == 2
    assert "ignore_background" in ended.err
