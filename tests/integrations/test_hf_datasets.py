"""Hugging Face's ``datasets`` reads folders of ``hf-dataset``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runs import CLASSES, Draw, make_photos, records

pytestmark = pytest.mark.full


@pytest.mark.parametrize("flags", [(), ("--ignore-background",)], ids=["background", "ignored"])
def test_datasets_reads_images_and_labels(
    flags: tuple[str, ...],
    run_script: Callable[..., Any],
    command: Any,
    clip_folder: Path,
    make_image: Draw,
    tmp_path: Path,
) -> None:
    photos, out = make_photos(tmp_path / "photos", make_image), tmp_path / "out"
    assert command("batch", photos, "-c", CLASSES, "-m", clip_folder, "-o", out, "-f", "hf-dataset", *flags).code == 0
    found = run_script("load_dataset.py", out)
    assert found == {"splits": ["train"], "features": {"image": "Image", "label": "Image"}, "modes": ["L"]}
    lines = records(out)
    with np.load(tmp_path / "images.npz") as images, np.load(tmp_path / "labels.npz") as labels:
        assert len(images) == len(lines) == 12
        for number, line in enumerate(lines):
            label, image = (np.asarray(Image.open(out / name)) for name in line["outputs"])
            np.testing.assert_array_equal(images[str(number)], image)
            np.testing.assert_array_equal(labels[str(number)], label)
