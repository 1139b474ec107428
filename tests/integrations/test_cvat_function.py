"""CVAT's auto-annotation function, loaded and called by cvat-cli and cvat-sdk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cliper.segmenter import Segmenter

FUNCTION = Path(__file__).parents[2] / "integrations" / "cvat" / "cliper_function.py"
CLASSES = "cat; dog; car: automobile"


def filled(points: list[float], shape: tuple[int, int]) -> np.ndarray:
    """[H, W] bool: the pixels whose centre is inside a polygon, by the even-odd rule."""
    corners = np.array(points).reshape(-1, 2)
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside = np.zeros(shape, bool)
    for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y1 != y2:
            inside ^= (min(y1, y2) < y) & (y < max(y1, y2)) & (x > x1 + (y - y1) * (x2 - x1) / (y2 - y1))
    return inside


@pytest.mark.full
def test_uploaded_shapes_are_the_label_map(
    run_script: Callable[..., Any], clip_folder: Path, tiny: Segmenter, photo: Path, tmp_path: Path
) -> None:
    parameters = [f"model=str:{clip_folder}", f"classes=str:{CLASSES}", "min_area=str:0", "tolerance=float:0"]
    found = run_script("call_cvat_function.py", FUNCTION, photo, tmp_path / "masks.npz", *parameters, "device=str:cpu")
    result = tiny(photo, CLASSES)
    assert found["names"] == list(result.classes)
    expected = result.labels
    assert len(set(np.unique(expected).tolist())) > 2
    with np.load(tmp_path / "masks.npz") as saved:
        masks, labels = saved["masks"], saved["labels"]
    np.testing.assert_array_equal((masks * labels[:, None, None]).sum(axis=0), expected)
    assert len(found["polygons"]) == len(masks)
    drawn = sum(label * filled(points, expected.shape) for label, points in found["polygons"])
    np.testing.assert_array_equal(drawn, expected)
    confident = [label for label, value in enumerate(result.confidence, start=1) if value >= 0.6]
    assert found["sure"] == [label for label in confident if (expected == label).any()]
