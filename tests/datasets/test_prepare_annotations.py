"""Annotation files of COCO and PASCAL-Context through ``cliper data prepare``: invalid entries are named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataset_trees import build_sources
from hostile_images import JPEG_APP1, exif_block, jpeg_scans, jpeg_with, segment

BENCHMARKS = {"coco-object": "coco-object", "context": "context60"}
SOURCES = {"coco-object": "annotations/instances_val2017.json", "context": "VOCdevkit/VOC2010/trainval_merged.json"}
MASKS = {"coco-object": "coco2014/coco_seg_anno", "context": "VOCdevkit/VOC2010/SegmentationClassContext"}
KEYS = {"coco-object": "annotations", "context": "annos_segmentation"}
BAD_SEGMENTATIONS = {
    "a coordinate of 1e9": [[1, 1, 1e9, 1, 4, 4]],
    "NaN": [[1, 1, float("nan"), 1, 4, 4]],
    "an enormous size": {"size": [10**6, 10**6], "counts": "PPYo10"},
}


def edit(what: str, root: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Build the sources of a benchmark and change its json."""
    build_sources(BENCHMARKS[what], root)
    path = root / SOURCES[what]
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return path


def masks(what: str, root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((root / MASKS[what]).glob("*.png"))}


@pytest.fixture
def undamaged_masks(tmp_path: Path, command: Callable[..., Any]) -> Callable[[str], dict[str, bytes]]:
    """The masks of undamaged sources."""

    def make(what: str) -> dict[str, bytes]:
        root = tmp_path / "undamaged"
        edit(what, root, lambda data: None)
        command("data", "prepare", what, root)
        return masks(what, root)

    return make


@pytest.mark.parametrize("what", BENCHMARKS)
@pytest.mark.parametrize("case", BAD_SEGMENTATIONS)
def test_image_with_a_bad_annotation_is_named_and_the_others_are_made(
    what: str,
    case: str,
    tmp_path: Path,
    command: Callable[..., Any],
    undamaged_masks: Callable[[str], dict[str, bytes]],
) -> None:
    def change(data: dict[str, Any]) -> None:
        data[KEYS[what]][0].update(segmentation=BAD_SEGMENTATIONS[case], id=17)

    path = edit(what, tmp_path, change)
    done = command("data", "prepare", what, tmp_path)
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert str(path) in done.err
    assert "annotation 17: expected " in done.err
    assert "2 masks written, 0 skipped, 1 failed" in done.out
    made = masks(what, tmp_path)
    assert len(made) == 2
    assert made.items() <= undamaged_masks(what).items()


@pytest.mark.parametrize("what", BENCHMARKS)
def test_entries_that_cannot_be_assigned_are_named_and_all_others_are_made(
    what: str, tmp_path: Path, command: Callable[..., Any], undamaged_masks: Callable[[str], dict[str, bytes]]
) -> None:
    first: list[int] = []

    def change(data: dict[str, Any]) -> None:
        first.extend([len(data[KEYS[what]]), len(data["images"])])
        # The last one's image is not listed, which is no error.
        data[KEYS[what]] += [5, {"category_id": 1}, {"image_id": True, "id": 3}, {"image_id": 10**30, "id": 4}]
        data["images"] += [None, {}, {**data["images"][0]}, {"id": -1, "file_name": "../a.jpg", "phase": "val"}]

    edit(what, tmp_path, change)
    done = command("data", "prepare", what, tmp_path)
    assert done.code == 1
    annotation, image = first
    named = [f"images[{image + i}]: " for i in range(4)]
    named += [f"{KEYS[what]}[{annotation + i}]: " for i in range(2)] + ["annotation 3: "]
    for line, text in zip(done.err.splitlines(), named, strict=True):
        assert text in line
    assert masks(what, tmp_path) == undamaged_masks(what)


@pytest.mark.parametrize("what", BENCHMARKS)
def test_image_of_another_size_than_its_file_is_named(what: str, tmp_path: Path, command: Callable[..., Any]) -> None:
    edit(what, tmp_path, lambda data: data["images"][0].update(height=31, width=17))
    done = command("data", "prepare", what, tmp_path)
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "got 17x31" in done.err
    assert len(masks(what, tmp_path)) == 2


@pytest.mark.parametrize("what", BENCHMARKS)
@pytest.mark.parametrize("state", ["absent", "damaged", "a pipe", "a GIF"])
def test_masks_are_made_without_image_files(
    what: str,
    state: str,
    tmp_path: Path,
    command: Callable[..., Any],
    undamaged_masks: Callable[[str], dict[str, bytes]],
) -> None:
    edit(what, tmp_path, lambda data: None)
    for image in tmp_path.rglob("*.jpg"):
        image.unlink()
        if state == "damaged":
            image.write_bytes(b"\xff\xd8\xff")
        elif state == "a pipe":
            os.mkfifo(image)
        elif state == "a GIF":
            Image.new("L", (1, 1)).save(image, "GIF")
    assert command("data", "prepare", what, tmp_path).code == 0
    assert masks(what, tmp_path) == undamaged_masks(what)


HOSTILE_IMAGES = {
    "EXIF whose entries share their data": (
        jpeg_with(segment(JPEG_APP1, b"Exif\0\0" + exif_block(1200, 30_000))),
        "expected an image with at most 32 MiB of tags",
    ),
    "a decompression bomb": (jpeg_scans(30_000, 30_000, 0), "expected the size 30000x30000"),
}


@pytest.mark.parametrize("what", BENCHMARKS)
@pytest.mark.parametrize("case", HOSTILE_IMAGES)
def test_hostile_image_is_named_and_the_other_masks_are_made(
    what: str, case: str, tmp_path: Path, command: Callable[..., Any]
) -> None:
    content, message = HOSTILE_IMAGES[case]
    edit(what, tmp_path, lambda data: None)
    image = min(tmp_path.rglob("*.jpg"))
    image.write_bytes(content)
    done = command("data", "prepare", what, tmp_path)
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert str(image) in done.err
    assert message in done.err
    assert len(masks(what, tmp_path)) == 2


@pytest.mark.parametrize("what", BENCHMARKS)
@pytest.mark.parametrize("state", ["a pipe", "too large"])
def test_json_that_is_no_file_or_too_large_is_refused(
    what: str, state: str, tmp_path: Path, command: Callable[..., Any]
) -> None:
    path = tmp_path / "other.json"
    if state == "a pipe":
        os.mkfifo(path)
    else:
        path.touch()
        os.truncate(path, 2_000_000_001)  # sparse
    done = command("data", "prepare", what, tmp_path, {"context": "--annotations"}.get(what, "--instances"), path)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert str(path) in done.err
