"""``cliper evaluate --engine ray``: the same matrix as here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dataset_trees.own import own_arguments, own_data, report_of

pytest.importorskip("ray")
pytestmark = pytest.mark.full


def test_the_matrix_is_the_local_one(command: Any, clip_folder: Path, tmp_path: Path, make_image: Any) -> None:
    own_data(tmp_path, 20, make_image)
    bad = tmp_path / "images" / "b" / "003.jpg"
    bad.write_bytes(b"no picture")
    arguments = (*own_arguments(tmp_path, clip_folder), "--on-error", "skip")
    here = command(*arguments, "-o", tmp_path / "local")
    there = command(*arguments, "-o", tmp_path / "ray", "--engine", "ray", "--workers", 2)
    assert (here.code, there.code) == (1, 1)
    local, ray = report_of(tmp_path / "local"), report_of(tmp_path / "ray")
    assert ray["matrix"] == local["matrix"]
    assert (ray["images"], ray["skipped"]) == (19, 1)
    assert ray["skipped_images"] == local["skipped_images"]
    # A picture that ends the run ends it with its line; what was done is kept, and the rest is done here.
    again = (*own_arguments(tmp_path, clip_folder), "-o", tmp_path / "stopped")
    stopped = command(*again, "--engine", "ray", "--workers", 1)
    assert stopped.code == 2
    assert str(bad) in stopped.err
    assert "Traceback" not in stopped.err
    own_data(tmp_path, 20, make_image)
    assert command(*again, "--resume").code == 0
    assert report_of(tmp_path / "stopped")["images"] == 20
