"""``cliper data prepare``: from the published downloads to the masks of the benchmarks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliper.datasets import find_benchmark
from cliper.datasets.prepare import cityscapes_masks, coco_object_masks, coco_stuff_masks, voc_aug_masks, write_masks
from cliper.errors import ImageError, InputError, MissingExtraError, OutputError
from dataset_trees import build_sources, exhaust_memory, expected, read_sample
from dataset_trees.sources import COCO_IDS, save_mat

# Command -> benchmark, form of the annotations.
COMMANDS = {
    "voc-aug": ("voc21", ""),
    "context": ("context60", "json"),
    "context from .mat": ("context59", "mat"),
    "coco-object": ("coco-object", ""),
    "coco-stuff": ("coco-stuff171", ""),
    "cityscapes": ("cityscapes", "numbers"),
    "cityscapes from polygons": ("cityscapes", "polygons"),
}
# Command -> the folder of masks that it makes.
FOLDERS = {
    "voc-aug": "VOCdevkit/VOC2012/SegmentationClassAug",
    "context": "VOCdevkit/VOC2010/SegmentationClassContext",
    "coco-object": "coco2014/coco_seg_anno",
    "coco-stuff": "coco2017/stuff_anno164/val2017",
    "cityscapes": "CityScapes/gtFine/val",
}


def masks_in(root: Path, what: str) -> dict[Path, bytes]:
    """Masks that a command made, sorted by path, without the files it made them from."""
    paths = sorted((root / FOLDERS[what]).rglob("*.png"))
    return {path: path.read_bytes() for path in paths if "labelIds" not in path.name}


@pytest.mark.parametrize("title", COMMANDS)
def test_prepared_masks_can_be_verified_and_read(title: str, tmp_path: Path, command: Callable[..., Any]) -> None:
    name, form = COMMANDS[title]
    what = title.partition(" ")[0]
    build_sources(name, tmp_path, form=form)
    assert command("data", "verify", tmp_path, name).code == (
        2 if what == "coco-object" else 1
    )  # which lists its masks
    done = command("data", "prepare", what, tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "3 masks written, 0 skipped" in done.out

    verified = command("data", "verify", tmp_path, name, "--full")
    samples = 6 if name == "cityscapes" else 3
    assert f"{samples} valid samples, expected" in verified.out
    assert verified.err == ""

    benchmark = find_benchmark(name)
    labels = expected(name)
    found = benchmark.samples(tmp_path)
    assert [sample.name for sample in found] == list(labels)
    for sample in found:
        np.testing.assert_array_equal(read_sample(benchmark, sample)[1], labels[sample.name])


@pytest.mark.parametrize("title", COMMANDS)
def test_second_run_makes_only_missing_and_truncated_masks(
    title: str, tmp_path: Path, command: Callable[..., Any]
) -> None:
    name, form = COMMANDS[title]
    what = title.partition(" ")[0]
    build_sources(name, tmp_path, form=form)
    command("data", "prepare", what, tmp_path)
    masks = masks_in(tmp_path, what)
    missing, truncated, intact = masks
    missing.unlink()
    truncated.write_bytes(masks[truncated][:40])
    before = intact.stat().st_mtime_ns
    done = command("data", "prepare", what, tmp_path)
    assert "2 masks written, 1 skipped" in done.out
    assert masks_in(tmp_path, what) == masks
    assert intact.stat().st_mtime_ns == before


def test_sbd_adds_masks_that_voc_does_not_have(tmp_path: Path, command: Callable[..., Any]) -> None:
    build_sources("voc21", tmp_path)
    done = command("data", "prepare", "voc-aug", tmp_path, "--sbd", tmp_path / "benchmark_RELEASE")
    assert done.code == 0
    assert "4 masks written" in done.out
    folder = tmp_path / FOLDERS["voc-aug"]
    added = np.array(Image.open(folder / "2008_009999.png"))
    np.testing.assert_array_equal(added, np.arange(21).reshape(3, 7))
    for name, labels in expected("voc21").items():
        np.testing.assert_array_equal(np.array(Image.open(folder / f"{name}.png")), labels)


@pytest.mark.parametrize("subfolder", ["", "benchmark_RELEASE", "benchmark_RELEASE/dataset"])
def test_sbd_folder_may_be_any_of_its_parents(subfolder: str, tmp_path: Path) -> None:
    build_sources("voc21", tmp_path)
    assert len(voc_aug_masks(tmp_path, tmp_path / subfolder).jobs) == 4


def test_context_json_writes_the_list_of_val(tmp_path: Path, command: Callable[..., Any]) -> None:
    build_sources("context60", tmp_path)
    (tmp_path / "VOCdevkit/VOC2010/ImageSets/Main/val.txt").unlink()
    command("data", "prepare", "context", tmp_path)
    names = (tmp_path / "VOCdevkit/VOC2010/ImageSets/SegmentationContext/val.txt").read_text().split()
    assert names == list(expected("context60"))  # without the image of train


def test_coco_object_writes_the_list_of_its_images(tmp_path: Path, command: Callable[..., Any]) -> None:
    build_sources("coco-object", tmp_path)
    command("data", "prepare", "coco-object", tmp_path)
    assert (tmp_path / "coco2014" / "val2017.txt").read_text().split() == list(expected("coco-object"))


def test_other_instances_file_writes_no_list(tmp_path: Path) -> None:
    build_sources("coco-object", tmp_path)
    other = (tmp_path / "annotations" / "instances_val2017.json").rename(tmp_path / "instances_val2014.json")
    plan = coco_object_masks(tmp_path, other)
    assert plan.split is None
    assert len(plan.jobs) == 3


def test_later_annotation_is_painted_over_an_earlier_one(tmp_path: Path) -> None:
    build_sources("coco-object", tmp_path)
    path = tmp_path / "annotations" / "instances_val2017.json"
    data = json.loads(path.read_text())

    def square(category: int, start: int, end: int) -> dict[str, Any]:
        corners = [start, start, end, start, end, end, start, end]
        return {"image_id": 5, "category_id": category, "segmentation": [corners], "iscrowd": 0}

    data["images"] = [{"id": 5, "file_name": "a.jpg", "height": 6, "width": 6}]
    data["annotations"] = [square(1, 0, 4), square(90, 2, 6)]
    path.write_text(json.dumps(data))
    write_masks(coco_object_masks(tmp_path))
    labels = np.array(Image.open(tmp_path / FOLDERS["coco-object"] / "000000000005.png"))
    painted = np.zeros((6, 6), int)
    painted[:4, :4] = 1
    painted[2:, 2:] = 80
    np.testing.assert_array_equal(labels, painted)


def test_unused_coco_ids_are_refused(tmp_path: Path) -> None:
    build_sources("coco-stuff171", tmp_path)
    plan = coco_stuff_masks(tmp_path)
    source = tmp_path / "stuffthingmaps_trainval2017" / "val2017" / plan.jobs[0].target.name
    used = {number - 1 for number in (*COCO_IDS, *range(92, 183))} | {255}
    assert len(used) == 172
    for value in (*range(182), 255):
        Image.fromarray(np.full((2, 2), value, np.uint8)).save(source)
        if value in used:
            assert plan.jobs[0].make().max() <= 255
        else:
            with pytest.raises(ImageError, match=f"got {value}: "):
                plan.jobs[0].make()


# --- masks that cannot be made -------------------------------------------------------------------------------------


def test_unreadable_source_does_not_stop_the_others(tmp_path: Path, command: Callable[..., Any]) -> None:
    build_sources("coco-stuff171", tmp_path)
    bad = sorted((tmp_path / "stuffthingmaps_trainval2017" / "val2017").iterdir())[1]
    bad.write_bytes(bad.read_bytes()[:50])
    done = command("data", "prepare", "coco-stuff", tmp_path)
    assert done.code == 1
    assert "2 masks written, 0 skipped, 1 failed" in done.out
    assert done.err.count("\n") == 1
    assert str(bad) in done.err
    assert not (tmp_path / FOLDERS["coco-stuff"] / bad.name).exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"GTcls": {"Segmentation": np.full((2, 2), 21, np.uint8)}}, "got 21"),
        ({"GTcls": {"Boundaries": np.zeros((2, 2), np.uint8)}}, "integer array GTcls.Segmentation"),
        ({"GTinst": {"Segmentation": np.zeros((2, 2), np.uint8)}}, "integer array GTcls.Segmentation"),
        ({"GTcls": {"Segmentation": np.zeros((2, 2))}}, "expected an integer array"),
    ],
)
def test_mat_file_without_the_array_is_named(content: dict[str, Any], message: str, tmp_path: Path) -> None:
    build_sources("voc21", tmp_path)
    path = tmp_path / "benchmark_RELEASE" / "dataset" / "cls" / "2008_009999.mat"
    save_mat(path, content)
    summary = write_masks(voc_aug_masks(tmp_path, tmp_path))
    assert len(summary.errors) == 1
    assert message in summary.errors[0]
    assert str(path) in summary.errors[0]


@pytest.mark.parametrize("data", [b"", b"MATLAB 5.0 MAT-file", b"\0" * 300])
def test_damaged_mat_file_is_named(data: bytes, tmp_path: Path) -> None:
    build_sources("voc21", tmp_path)
    path = tmp_path / "benchmark_RELEASE" / "dataset" / "cls" / "2008_009999.mat"
    path.write_bytes(data)
    summary = write_masks(voc_aug_masks(tmp_path, tmp_path))
    assert len(summary.errors) == 1
    assert "\n" not in summary.errors[0]
    assert str(path) in summary.errors[0]


def car(polygon: Any, label: Any = "car") -> dict[str, Any]:
    return {"objects": [{"label": label, "polygon": polygon}]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (car([[0, 0], [1, 0], [1, 1]], "spaceship"), "objects[0]: expected a label of Cityscapes, got 'spaceship'"),
        (car([[0, 0], [1, 0], [1, 1]], 7), "objects[0]: expected a label of Cityscapes, got 7"),
        (car(None), "objects[0]: expected a polygon [[x, y], [x, y], ...], got None"),
        (car([5]), "objects[0]: expected a polygon [[x, y], [x, y], ...], got [5]"),
        (car([[0, 0, 0]]), "objects[0]: expected a polygon [[x, y], [x, y], ...], got [[0, 0, 0]]"),
        (car([[0, 0], [1, 0]]), "objects[0]: expected a polygon of 3 or more points"),
        (car([[0, 0], [1, 0], [float("nan"), 1]]), "for x, got nan"),
        (car([[0, 0], [1, 0], [0, 1e12]]), "for y, got 1000000000000.0"),
        (car([[0, 0], [1, 0], [0, True]]), "for y, got True"),
        ({"objects": [7]}, "objects[0]: expected an object with label and polygon, got 7"),
        ({"objects": None}, "expected a list 'objects', got None"),
        ({"objects": [7, 8]}, "objects[1]: expected an object"),
        ({"imgWidth": 0}, "expected a positive integer width, got 0"),
        ({"imgWidth": 10**9}, "megapixels"),
        ({"imgWidth": 10_000, "imgHeight": 10_000, "objects": [7] * 101}, "got 101 annotations"),
    ],
)
def test_invalid_polygons_are_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    build_sources("cityscapes", tmp_path, form="polygons")
    path = sorted((tmp_path / "CityScapes").rglob("*_polygons.json"))[0]
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    summary = write_masks(cityscapes_masks(tmp_path))
    assert summary.written == 2
    assert len(summary.errors) == 1
    assert message in summary.errors[0]
    assert str(path) in summary.errors[0]


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("rasterize._MAX_OUTLINES", 20, "objects[1]: expected at most 20 pixels along all outlines of an image"),
        ("cityscapes._MAX_EDGE_ROWS", 200, "objects[1]: expected at most 2e+02 points of all polygons times rows"),
    ],
)
def test_cityscapes_polygons_beyond_the_work_limit_are_named(
    limit: str, value: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_sources("cityscapes", tmp_path, form="polygons")
    path = min((tmp_path / "CityScapes").rglob("*_polygons.json"))
    triangle = car([[0, 0], [3, 0], [3, 3]])["objects"]  # 12 pixels along its outline
    path.write_text(json.dumps({"imgWidth": 40, "imgHeight": 40, "objects": triangle * 2}))
    monkeypatch.setattr(f"cliper.datasets.prepare.{limit}", value)
    job = next(job for job in cityscapes_masks(tmp_path).jobs if job.target.name.startswith(path.name[:20]))
    with pytest.raises(ImageError) as caught:
        job.make()
    assert message in str(caught.value)
    assert "objects[0]" not in str(caught.value)


@pytest.mark.parametrize("when", ["an existing mask is read", "a mask is made"])
def test_mask_for_which_memory_runs_out_is_named_and_the_others_are_made(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_sources("coco-stuff171", tmp_path)
    plan = coco_stuff_masks(tmp_path)
    first = plan.jobs[0].target
    if when == "an existing mask is read":
        write_masks(plan)
        exhaust_memory(monkeypatch, first)
        summary = write_masks(plan)
        assert (summary.written, summary.skipped) == (0, 2)
    else:
        exhaust_memory(monkeypatch, tmp_path / "stuffthingmaps_trainval2017" / "val2017" / first.name)
        summary = write_masks(plan)
        assert (summary.written, summary.skipped) == (2, 0)
    assert len(summary.errors) == 1
    assert first.name in summary.errors[0]
    assert "memory" in summary.errors[0]


@pytest.mark.parametrize("what", ["context", "coco-object"])
@pytest.mark.parametrize("text", ["", "[]", "{}", '{"images": 3, "annotations": [], "annos_segmentation": []}'])
def test_json_without_annotations_is_refused(what: str, text: str, tmp_path: Path, command: Callable[..., Any]) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    option = "--annotations" if what == "context" else "--instances"
    done = command("data", "prepare", what, tmp_path, option, path)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert str(path) in done.err


def test_categories_other_than_cocos_are_refused(tmp_path: Path) -> None:
    build_sources("coco-object", tmp_path)
    path = tmp_path / "annotations" / "instances_val2017.json"
    data = json.loads(path.read_text())
    data["categories"][3]["name"], data["categories"][4]["name"] = "airplane", "motorcycle"
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match="expected COCO's 80 categories"):
        coco_object_masks(tmp_path)


@pytest.mark.parametrize("what", FOLDERS)
def test_missing_sources_are_refused(what: str, tmp_path: Path, command: Callable[..., Any]) -> None:
    done = command("data", "prepare", what, tmp_path)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "got nothing there" in done.err
    assert list(tmp_path.iterdir()) == []


def test_missing_pycocotools_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_sources("coco-object", tmp_path)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    monkeypatch.delitem(sys.modules, "pycocotools.mask", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'cliper\[coco\]'"):
        coco_object_masks(tmp_path)


def test_unwritable_folder_ends_the_run(tmp_path: Path) -> None:
    build_sources("coco-stuff171", tmp_path)
    (tmp_path / "coco2017" / "stuff_anno164").write_text("a file")
    with pytest.raises(OutputError):
        write_masks(coco_stuff_masks(tmp_path))
