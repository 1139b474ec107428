"""COCO instances and panoptic, read by pycocotools and by the formats' own rules."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from made_results import CLASSES, NAMES, labels_of, make_run, result_of
from PIL import Image
from pycocotools.coco import COCO as Reader

from cliper.formats.registry import find_format

# pycocotools' own, of numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def read(path: Path) -> Reader:
    with contextlib.redirect_stdout(io.StringIO()):
        return Reader(str(path))


def painted(reader: Reader, image: int) -> np.ndarray:
    """The label map that a picture's annotations add up to."""
    about = reader.loadImgs(image)[0]
    labels = np.zeros((about["height"], about["width"]), int)
    for annotation in reader.loadAnns(reader.getAnnIds(image)):
        mask = reader.annToMask(annotation)
        assert annotation["area"] == mask.sum()
        ys, xs = np.nonzero(mask)
        assert annotation["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
        labels += annotation["category_id"] * mask
    return labels


def test_a_run_of_instances(tmp_path: Path) -> None:
    run = make_run(tmp_path, find_format("coco"))
    assert run.paths == [run.folder / "coco.json"]
    reader = read(run.paths[0])
    assert [(c["id"], c["name"]) for c in reader.loadCats(reader.getCatIds())] == list(enumerate(CLASSES, start=1))
    assert [(i["id"], i["file_name"]) for i in reader.loadImgs(reader.getImgIds())] == list(enumerate(NAMES, start=7))
    ids = reader.getAnnIds()
    assert sorted(ids) == list(range(1, len(ids) + 1))  # none twice, none 0, which evaluation takes for no match
    for number, name in enumerate(NAMES, start=7):
        np.testing.assert_array_equal(painted(reader, number), run.results[name].labels)
    assert {round(a["score"], 6) for a in reader.loadAnns(ids)} == {0.5, 0.7, 0.9}


def test_one_picture_on_its_own(tmp_path: Path) -> None:
    run = make_run(tmp_path, find_format("coco"))
    output = run.outputs.items[1]
    np.testing.assert_array_equal(painted(read(output.path), 8), run.results[NAMES[1]].labels)


def test_every_region_is_an_annotation() -> None:
    labels = np.array([[1, 0, 1], [0, 1, 1], [2, 2, 0]])
    annotations = result_of(labels).to_coco(file_name="x.png", image_id=3)["annotations"]
    assert [(a["category_id"], a["area"], a["bbox"]) for a in annotations] == [
        (1, 1, [0, 0, 1, 1]),
        (1, 3, [1, 0, 2, 2]),
        (2, 2, [0, 2, 2, 1]),
    ]
    assert {a["image_id"] for a in annotations} == {3}


def test_panoptic_keeps_the_formats_rules(tmp_path: Path) -> None:
    run = make_run(tmp_path, find_format("coco-panoptic"))
    document = json.loads(run.paths[0].read_text())
    assert [i["id"] for i in document["images"]] == [7, 8, 9]
    categories = {c["id"]: c for c in document["categories"]}
    assert {c["isthing"] for c in categories.values()} == {0}
    for annotation, name in zip(document["annotations"], NAMES, strict=True):
        with Image.open(run.folder / annotation["file_name"]) as picture:
            assert picture.mode == "RGB"
            colours = np.asarray(picture).astype(int)
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
def test_many_classes_in_panoptic(label: int, tmp_path: Path) -> None:
    from cliper.formats.coco_panoptic import write_panoptic_png

    labels = labels_of(1)
    labels[0, 0] = label
    write_panoptic_png(tmp_path / "a.png", labels)
    colours = np.asarray(Image.open(tmp_path / "a.png")).astype(int)
    np.testing.assert_array_equal(colours @ [1, 256, 65536], labels)
