"""Folders of small pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from batch_runs import CLASSES, make_photos
from PIL import Image


@pytest.fixture
def photos(tmp_path: Path, make_image: Callable[..., Image.Image]) -> Path:
    """Twelve pictures of three sizes in three folders."""
    return make_photos(tmp_path / "photos", make_image)


@pytest.fixture
def batch(command: Any, clip_folder: Path, tmp_path: Path) -> Callable[..., Any]:
    """Run it with the tiny CLIP into ``out``, unless told otherwise."""

    def call(pictures: object, *flags: object, out: Path | None = None, classes: str = CLASSES) -> Any:
        return command(
            "batch", pictures, "-c", classes, "-m", clip_folder, "-o", out or tmp_path / "out", "--threads", 2, *flags
        )

    return call
