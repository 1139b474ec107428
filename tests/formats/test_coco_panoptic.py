"""COCO panoptic, read by the rules of the format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from format_helpers import NAMES, labels_of, make_run
from PIL import Image

from cliper.formats import find_format
from cliper.formats.coco_panoptic import write_panoptic_png


def test_run_is_read_back_by_the_rules_of_the_format(tmp_path: Path) -> None:
    run = make_run(tmp_path, find_format("coco-panoptic"))
    document = json.loads(run.paths[0].read_text())
    assert [i["id"] for i in document["images"]] == [7, 8, 9]
    categories = {c["id"]: c for c in document["categories"]}
    assert {c["isthing"] for c in categories.values()} == {0}
    for annotation, name in zip(document["annotations"], NAMES, strict=True):
        with Image.open(run.folder / annotation["file_name"]) as png:
            assert png.mode == "RGB"
            colours = np.asarray(png).astype(int)
        ids = colours[..., 0] + 256 * colours[..., 1] + 256**2 * colours[..., 2]
        labels = np.zeros_like(ids)
        for segment in annotation["segments_info"]:
            mask = ids == segment["id"]
            assert segment["area"] == mask.sum() > 0
            ys, xs = np.nonzero(mask)
            assert segment["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            labels[mask] = categories[segment["category_id"]]["id"]
        assert {0, *(segment["id"] for segment in annotation["segments_info"])} == set(np.unique(ids)) | {0}
        np.testing.assert_array_equal(labels, run.results[name].labels)


@pytest.mark.parametrize("label", [255, 256, 300, 4000])
def test_labels_above_255_are_stored(label: int, tmp_path: Path) -> None:
    labels = labels_of(1)
    labels[0, 0] = label
    write_panoptic_png(tmp_path / "a.png", labels)
    with Image.open(tmp_path / "a.png") as png:
        np.testing.assert_array_equal(np.asarray(png).astype(int) @ [1, 256, 65536], labels)
