"""From what is downloaded to the masks of the benchmarks, through the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliper.benchmarks import find_benchmark
from cliper.benchmarks.prepare import carry_out, cityscapes_masks, coco_object_masks, coco_stuff_masks, voc_aug_masks
from cliper.errors import ImageError, InputError, MissingExtraError, OutputError
from dataset_trees import build_sources, expected
from dataset_trees.sources import COCO_IDS, save_mat

# Command -> benchmark, form of the sources.
COMMANDS = {
    "voc-aug": ("voc21", ""),
    "context": ("context60", "json"),
    "context from .mat": ("context59", "mat"),
    "coco-object": ("coco-object", ""),
    "coco-stuff": ("coco-stuff171", ""),
    "cityscapes": ("cityscapes", "numbers"),
    "cityscapes from polygons": ("cityscapes", "polygons"),
}
# The folder of masks that a command makes.
MADE = {
    "voc-aug": "VOCdevkit/VOC2012/SegmentationClassAug",
    "context": "VOCdevkit/VOC2010/SegmentationClassContext",
    "coco-object": "coco2014/coco_seg_anno",
    "coco-stuff": "coco2017/stuff_anno164/val2017",
    "cityscapes": "CityScapes/gtFine/val",
}


def masks_in(root: Path, what: str) -> dict[Path, bytes]:
    """What a command made, in the order of the names; not what it was made from."""
    paths = sorted((root / MADE[what]).rglob("*.png"))
    return {path: path.read_bytes() for path in paths if "labelIds" not in path.name}


@pytest.mark.parametrize("title", COMMANDS)
def test_prepare_verify_read(title: str, tmp_path: Path, command: Callable[..., Any]) -> None:
    name, form = COMMANDS[title]
    what = title.partition(" ")[0]
    build_sources(name, tmp_path, form=form)
    assert command("data", "verify", tmp_path, name).code == (
        2 if what == "coco-object" else 1
    )  # which lists its masks
    done = command("data", "prepare", what, tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "3 masks written, 0 there already" in done.out

    verified = command("data", "verify", tmp_path, name, "--full")
    samples = 6 if name == "cityscapes" else 3
    assert f"{samples} samples, expected" in verified.out
    assert verified.err == ""

    benchmark = find_benchmark(name)
    wanted = expected(name)
    found = benchmark.samples(tmp_path)
    assert [sample.name for sample in found] == list(wanted)
    for sample in found:
        np.testing.assert_array_equal(benchmark.read(sample)[1], wanted[sample.name])


@pytest.mark.parametrize("title", COMMANDS)
def test_a_second_run_makes_only_what_is_missing_or_cut(
    title: str, tmp_path: Path, command: Callable[..., Any]
) -> None:
    name, form = COMMANDS[title]
    what = title.partition(" ")[0]
    build_sources(name, tmp_path, form=form)
    command("data", "prepare", what, tmp_path)
    whole = masks_in(tmp_path, what)
    gone, cut, kept = whole
    gone.unlink()
    cut.write_bytes(whole[cut][:40])
    before = kept.stat().st_mtime_ns
    done = command("data", "prepare", what, tmp_path)
    assert "2 masks written, 1 there already" in done.out
    assert masks_in(tmp_path, what) == whole
    assert kept.stat().st_mtime_ns == before


def test_voc_wins_over_sbd_and_sbd_adds_the_others(tmp_path: Path, command: Callable[..., Any]) -> None:
    build_sources("voc21", tmp_path)
    done = command("data", "prepare", "voc-aug", tmp_path, "--sbd", tmp_path / "benchmark_RELEASE")
    assert done.code == 0
    assert "4 masks written" in done.out
    folder = tmp_path / MADE["voc-aug"]
    added = np.array(Image.open(folder / "2008_009999.png"))
    np.testing.assert_array_equal(added, np.arange(21).reshape(3, 7))
    for name, labels in expected("voc21").items():
        np.testing.assert_array_equal(np.array(Image.open(folder / f"{name}.png")), labels)


@pytest.mark.parametrize("below", ["", "benchmark_RELEASE", "benchmark_RELEASE/dataset"])
def test_sbd_is_found_from_any_of_its_folders(below: str, tmp_path: Path) -> None:
    build_sources("voc21", tmp_path)
    assert len(voc_aug_masks(tmp_path, tmp_path / below).jobs) == 4


def test_context_json_brings_the_list_of_val(tmp_path: Path, command: Callable[..., Any]) -> None:
    build_sources("context60", tmp_path)
    (tmp_path / "VOCdevkit/VOC2010/ImageSets/Main/val.txt").unlink()
    command("data", "prepare", "context", tmp_path)
    listed = (tmp_path / "VOCdevkit/VOC2010/ImageSets/SegmentationContext/val.txt").read_text().split()
    assert listed == list(expected("context60"))  # and not the picture of train


def test_coco_object_writes_the_list_of_its_pictures(tmp_path: Path, command: Callable[..., Any]) -> None:
    build_sources("coco-object", tmp_path)
    command("data", "prepare", "coco-object", tmp_path)
    assert (tmp_path / "coco2014" / "val2017.txt").read_text().split() == list(expected("coco-object"))


def test_other_instances_bring_no_list(tmp_path: Path) -> None:
    build_sources("coco-object", tmp_path)
    other = (tmp_path / "annotations" / "instances_val2017.json").rename(tmp_path / "instances_val2014.json")
    plan = coco_object_masks(tmp_path, other)
    assert plan.split is None
    assert len(plan.jobs) == 3


def test_a_later_region_lies_over_an_earlier_one(tmp_path: Path) -> None:
    build_sources("coco-object", tmp_path)
    path = tmp_path / "annotations" / "instances_val2017.json"
    data = json.loads(path.read_text())

    def square(category: int, start: int, end: int) -> dict[str, Any]:
        corners = [start, start, end, start, end, end, start, end]
        return {"image_id": 5, "category_id": category, "segmentation": [corners], "iscrowd": 0}

    data["images"] = [{"id": 5, "file_name": "a.jpg", "height": 6, "width": 6}]
    data["annotations"] = [square(1, 0, 4), square(90, 2, 6)]
    path.write_text(json.dumps(data))
    carry_out(coco_object_masks(tmp_path))
    labels = np.array(Image.open(tmp_path / MADE["coco-object"] / "000000000005.png"))
    wanted = np.zeros((6, 6), int)
    wanted[:4, :4] = 1
    wanted[2:, 2:] = 80
    np.testing.assert_array_equal(labels, wanted)


def test_ids_that_were_never_given_are_refused(tmp_path: Path) -> None:
    build_sources("coco-stuff171", tmp_path)
    plan = coco_stuff_masks(tmp_path)
    source = tmp_path / "stuffthingmaps_trainval2017" / "val2017" / plan.jobs[0].target.name
    given = {number - 1 for number in (*COCO_IDS, *range(92, 183))} | {255}
    assert len(given) == 172
    for value in (*range(182), 255):
        Image.fromarray(np.full((2, 2), value, np.uint8)).save(source)
        if value in given:
            assert plan.jobs[0].make().max() <= 255
        else:
            with pytest.raises(ImageError, match=f"got {value}: "):
                plan.jobs[0].make()


# --- what cannot be made --------------------------------------------------------------------------------------


def test_one_source_that_cannot_be_read_stops_no_other(tmp_path: Path, command: Callable[..., Any]) -> None:
    build_sources("coco-stuff171", tmp_path)
    bad = sorted((tmp_path / "stuffthingmaps_trainval2017" / "val2017").iterdir())[1]
    bad.write_bytes(bad.read_bytes()[:50])
    done = command("data", "prepare", "coco-stuff", tmp_path)
    assert done.code == 1
    assert "2 masks written, 0 there already, 1 failed" in done.out
    assert done.err.count("\n") == 1
    assert str(bad) in done.err
    assert not (tmp_path / MADE["coco-stuff"] / bad.name).exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"GTcls": {"Segmentation": np.full((2, 2), 21, np.uint8)}}, "got 21"),
        ({"GTcls": {"Boundaries": np.zeros((2, 2), np.uint8)}}, "GTcls.Segmentation, got none"),
        ({"GTinst": {"Segmentation": np.zeros((2, 2), np.uint8)}}, "GTcls.Segmentation, got none"),
        ({"GTcls": {"Segmentation": np.zeros((2, 2))}}, "expected an integer array"),
    ],
)
def test_a_mat_file_of_something_else(content: dict[str, Any], said: str, tmp_path: Path) -> None:
    build_sources("voc21", tmp_path)
    path = tmp_path / "benchmark_RELEASE" / "dataset" / "cls" / "2008_009999.mat"
    save_mat(path, content)
    outcome = carry_out(voc_aug_masks(tmp_path, tmp_path))
    assert len(outcome.failed) == 1
    assert said in outcome.failed[0]
    assert str(path) in outcome.failed[0]


@pytest.mark.parametrize("data", [b"", b"MATLAB 5.0 MAT-file", b"\0" * 300])
def test_a_mat_file_that_is_none(data: bytes, tmp_path: Path) -> None:
    build_sources("voc21", tmp_path)
    path = tmp_path / "benchmark_RELEASE" / "dataset" / "cls" / "2008_009999.mat"
    path.write_bytes(data)
    outcome = carry_out(voc_aug_masks(tmp_path, tmp_path))
    assert len(outcome.failed) == 1
    assert "\n" not in outcome.failed[0]
    assert str(path) in outcome.failed[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"objects": [{"label": "spaceship", "polygon": [[0, 0], [1, 0], [1, 1]]}]}, "no label is called 'spaceship'"),
        ({"objects": [{"label": "car"}]}, "could not draw"),
        ({"objects": [{"label": "car", "polygon": [[0, 0], [1, 0], [float("nan"), 1]]}]}, "not finite"),
        ({"imgWidth": 0}, "got 0x"),
        ({"imgWidth": 10**9}, "megapixels"),
    ],
)
def test_polygons_that_cannot_be_drawn(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    build_sources("cityscapes", tmp_path, form="polygons")
    path = sorted((tmp_path / "CityScapes").rglob("*_polygons.json"))[0]
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    outcome = carry_out(cityscapes_masks(tmp_path))
    assert outcome.written == 2
    assert len(outcome.failed) == 1
    assert said in outcome.failed[0]
    assert str(path) in outcome.failed[0]


@pytest.mark.parametrize("what", ["context", "coco-object"])
@pytest.mark.parametrize("text", ["", "[]", "{}", '{"images": 3, "annotations": [], "annos_segmentation": []}'])
def test_a_json_of_something_else(what: str, text: str, tmp_path: Path, command: Callable[..., Any]) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    option = "--annotations" if what == "context" else "--instances"
    done = command("data", "prepare", what, tmp_path, option, path)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert str(path) in done.err


def test_categories_that_are_not_cocos(tmp_path: Path) -> None:
    build_sources("coco-object", tmp_path)
    path = tmp_path / "annotations" / "instances_val2017.json"
    data = json.loads(path.read_text())
    data["categories"][3]["name"], data["categories"][4]["name"] = "airplane", "motorcycle"
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match="expected COCO's 80 categories"):
        coco_object_masks(tmp_path)


@pytest.mark.parametrize("what", MADE)
def test_nothing_to_make_it_from(what: str, tmp_path: Path, command: Callable[..., Any]) -> None:
    done = command("data", "prepare", what, tmp_path)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "got nothing there" in done.err
    assert list(tmp_path.iterdir()) == []


def test_without_pycocotools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_sources("coco-object", tmp_path)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    monkeypatch.delitem(sys.modules, "pycocotools.mask", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'cliper\[coco\]'"):
        coco_object_masks(tmp_path)


def test_a_folder_that_cannot_be_written_stops_it(tmp_path: Path) -> None:
    build_sources("coco-stuff171", tmp_path)
    (tmp_path / "coco2017" / "stuff_anno164").write_text("a file")
    with pytest.raises(OutputError):
        carry_out(coco_stuff_masks(tmp_path))
