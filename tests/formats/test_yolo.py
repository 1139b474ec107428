"""YOLO files, read by the rules of Ultralytics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from format_helpers import CLASSES, NAMES, filled, make_run

from cliper.formats import FormatOptions, find_format


def test_polygons_filled_again_are_the_label_map(tmp_path: Path) -> None:
    run = make_run(tmp_path, find_format("yolo"), FormatOptions(tolerance=0))
    data = yaml.safe_load(run.paths[0].read_text(encoding="utf-8"))
    assert data["names"] == dict(enumerate(CLASSES))
    for output, name in zip(run.outputs, NAMES, strict=True):
        labels = np.zeros((40, 60), int)
        for line in output.path.read_text().splitlines():
            index, *fractions = map(float, line.split())
            points = np.array(fractions).reshape(-1, 2)
            assert points.min() >= 0
            assert points.max() <= 1
            # With 7 digits a corner is within 1e-5 pixels of its place.
            corners = points * [60, 40]
            np.testing.assert_allclose(corners, corners.round(), atol=1e-4)
            labels += (int(index) + 1) * filled(corners.round(), labels.shape)
        np.testing.assert_array_equal(labels, run.results[name].labels)


def test_class_names_are_read_back(tmp_path: Path) -> None:
    names = ("yes", "1", "a: b", "# c", '"', "狗 🐕", "é\u2028x", "- d")
    (path,) = find_format("yolo").merge([], tmp_path, names, FormatOptions())
    assert tuple(yaml.safe_load(path.read_text(encoding="utf-8"))["names"].values()) == names
