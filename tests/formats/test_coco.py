"""COCO instances, read by pycocotools."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from format_helpers import CLASSES, NAMES, make_run, result_of
from pycocotools.coco import COCO as Reader

from cliper.formats import find_format

# pycocotools' own, of numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def read(path: Path) -> Reader:
    with contextlib.redirect_stdout(io.StringIO()):
        return Reader(str(path))


def label_map(reader: Reader, image_id: int) -> np.ndarray:
    """The label map that an image's annotations add up to."""
    entry = reader.loadImgs(image_id)[0]
    labels = np.zeros((entry["height"], entry["width"]), int)
    for annotation in reader.loadAnns(reader.getAnnIds(image_id)):
        mask = reader.annToMask(annotation)
        assert annotation["area"] == mask.sum()
        ys, xs = np.nonzero(mask)
        assert annotation["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
        labels += annotation["category_id"] * mask
    return labels


def test_run_is_read_back_by_pycocotools(tmp_path: Path) -> None:
    run = make_run(tmp_path, find_format("coco"))
    assert run.paths == [run.folder / "coco.json"]
    reader = read(run.paths[0])
    assert [(c["id"], c["name"]) for c in reader.loadCats(reader.getCatIds())] == list(enumerate(CLASSES, start=1))
    assert [(i["id"], i["file_name"]) for i in reader.loadImgs(reader.getImgIds())] == list(enumerate(NAMES, start=7))
    ids = reader.getAnnIds()
    assert sorted(ids) == list(range(1, len(ids) + 1))  # unique, and none is 0, which evaluation takes for no match
    for number, name in enumerate(NAMES, start=7):
        np.testing.assert_array_equal(label_map(reader, number), run.results[name].labels)
    assert {round(a["score"], 6) for a in reader.loadAnns(ids)} == {0.5, 0.7, 0.9}


def test_file_of_one_image_is_a_complete_document(tmp_path: Path) -> None:
    run = make_run(tmp_path, find_format("coco"))
    path = run.outputs.items[1].path
    np.testing.assert_array_equal(label_map(read(path), 8), run.results[NAMES[1]].labels)


def test_each_connected_region_is_an_annotation() -> None:
    labels = np.array([[1, 0, 1], [0, 1, 1], [2, 2, 0]])
    annotations = result_of(labels).to_coco(file_name="x.png", image_id=3)["annotations"]
    assert [(a["category_id"], a["area"], a["bbox"]) for a in annotations] == [
        (1, 1, [0, 0, 1, 1]),
        (1, 3, [1, 0, 2, 2]),
        (2, 2, [0, 2, 2, 1]),
    ]
    assert {a["image_id"] for a in annotations} == {3}
