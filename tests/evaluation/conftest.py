"""Custom data, and the command on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataset_trees.own import own_arguments, own_data
from runs import Draw


@pytest.fixture(autouse=True)
def no_progress_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a run of seconds takes a minute, and would say how far it is."""
    monkeypatch.setattr("cliper.cli.progress._LOG_INTERVAL", 1e9)


@pytest.fixture
def evaluate(command: Any, clip_folder: Path, tmp_path: Path, make_image: Draw) -> Callable[..., Any]:
    """Run it on five images and masks in the test's folder."""
    own_data(tmp_path, 5, make_image)
    return lambda *flags, out="out": command(*own_arguments(tmp_path, clip_folder), "-o", tmp_path / out, *flags)
