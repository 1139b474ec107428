"""Folders of small pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from batch_runs import make_photos
from PIL import Image


@pytest.fixture
def photos(tmp_path: Path, make_picture: Callable[..., Image.Image]) -> Path:
    """Twelve pictures of three sizes in three folders."""
    return make_photos(tmp_path / "photos", make_picture)
