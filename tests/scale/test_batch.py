"""``cliper batch`` from begin to end: what is written, what is resumed, what is refused."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batch_runs import CLASSES, by_input, content, make_photos, records
from PIL import Image

import cliper
from cliper.formats import read_label_png
from cliper.formats.registry import find_format, format_names

Draw = Callable[..., Image.Image]


@pytest.fixture
def batch(command: Any, clip_folder: Path, tmp_path: Path) -> Callable[..., Any]:
    """Run it with the tiny CLIP into ``out``, unless told otherwise."""

    def call(pictures: object, *flags: object, out: Path | None = None, classes: str = CLASSES) -> Any:
        return command(
            "batch", pictures, "-c", classes, "-m", clip_folder, "-o", out or tmp_path / "out", "--workers", 2, *flags
        )

    return call


def segmented(own_tiny: Any, path: Path) -> cliper.Segmentation:
    result: cliper.Segmentation = own_tiny(path, CLASSES)
    return result


# --- what is written -------------------------------------------------------------------------------------


def test_a_folder_of_pictures(batch: Any, photos: Path, tmp_path: Path, own_tiny: Any, tree: Any) -> None:
    ended = batch(photos)
    assert (ended.code, ended.err) == (0, "")
    out = tmp_path / "out"
    pictures = sorted(path for path in photos.rglob("*") if path.is_file())
    assert len(pictures) == 12
    expected = {"manifest.jsonl", "run.json", "garden", "garden/far"}
    found = by_input(out)
    assert list(found) == [item["input"] for item in records(out)] == sorted(found, key=lambda name: name.split("/"))
    for path in pictures:
        name = path.relative_to(photos).as_posix()
        stem = name.rpartition(".")[0]
        result = segmented(own_tiny, path)
        line = found[name]
        assert line["outputs"] == [f"{stem}.labels.png", f"{stem}.overlay.png"]
        assert (line["status"], line["error"]) == ("done", None)
        assert line["areas"] == result.areas
        assert (line["width"], line["height"]) == result.picture.size
        assert line["seconds"] > 0
        assert np.array_equal(read_label_png(out / line["outputs"][0]), result.labels)
        with Image.open(out / line["outputs"][1]) as overlay:
            assert np.array_equal(np.asarray(overlay), np.asarray(result.overlay()))
        expected |= set(line["outputs"])
    assert set(tree(out)) == expected
    assert ended.out.startswith("12 pictures: 12 done; ")
    assert ended.out.splitlines()[1:] == [f"wrote {out / 'manifest.jsonl'}"]


def test_every_format(batch: Any, photos: Path, tmp_path: Path) -> None:
    flags = [flag for name in format_names() for flag in ("--format", name)]
    assert batch(photos, *flags).code == 0
    out = tmp_path / "out"
    for line in records(out):
        stem = line["input"].rpartition(".")[0]
        assert line["outputs"] == [stem + find_format(name).suffix for name in format_names()]
        assert all((out / name).is_file() for name in line["outputs"])
    whole = json.loads((out / "coco.json").read_text())
    assert [image["file_name"] for image in whole["images"]] == [line["input"] for line in records(out)]
    assert [image["id"] for image in whole["images"]] == list(range(1, 13))
    for name in ("panoptic.json", "cvat.zip", "data.yaml", "gallery/index.html"):
        assert (out / name).is_file()


@pytest.mark.parametrize("kind", ["list", "tar", "tar.gz"])
def test_a_list_and_a_tar_give_what_the_folder_gives(batch: Any, photos: Path, tmp_path: Path, kind: str) -> None:
    names = [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("p*.*"))]
    if kind == "list":
        source = photos / "list.txt"
        source.write_text("\n".join(names))
    else:
        source = tmp_path / f"photos.{kind}"
        with tarfile.open(source, "w:gz" if kind.endswith("gz") else "w") as tar:
            for name in names:
                tar.add(photos / name, name)
    assert batch(source, "-f", "labels", "-f", "overlay", "-f", "labelme").code == 0
    assert batch(photos, "-f", "labels", "-f", "overlay", "-f", "labelme", out=tmp_path / "folder").code == 0
    found, expected = content(tmp_path / "out"), content(tmp_path / "folder")
    assert [line["input"] for line in records(tmp_path / "out")] == names
    for one in (found, expected):
        del one["run.json"], one["manifest.jsonl"]
    assert found == expected


def test_labels_are_cleaned(batch: Any, photos: Path, tmp_path: Path, own_tiny: Any) -> None:
    flags = ["--min-area", 40, "--fill-holes", "--smooth", 1]
    assert batch(photos, *flags).code == 0
    changed = 0
    for line in records(tmp_path / "out"):
        result = segmented(own_tiny, photos / line["input"])
        cleaned = result.clean(min_area=40, fill_holes=True, smooth=1)
        changed += not np.array_equal(result.labels, cleaned.labels)
        assert np.array_equal(read_label_png(tmp_path / "out" / line["outputs"][0]), cleaned.labels)
        assert line["areas"] == cleaned.areas
    assert changed > 0


def test_glob_and_a_folder_of_results_inside_the_pictures(batch: Any, photos: Path, tmp_path: Path) -> None:
    out = photos / "garden" / "results"
    assert batch(photos, "--glob", "*.png", out=out).code == 0
    assert len(records(out)) == 6
    # What was written there is not taken for pictures.
    assert batch(photos, "--glob", "*.png", "--resume", out=out).code == 0
    assert len(records(out)) == 6


# --- pictures that cannot be done ------------------------------------------------------------------------


def test_bad_pictures_are_named_and_the_others_done(batch: Any, photos: Path, tmp_path: Path, tree: Any) -> None:
    (photos / "bad.jpg").write_text("no picture")
    (photos / "garden" / "empty.png").write_bytes(b"")
    Image.new("RGB", (3000, 2)).save(photos / "strip.png")
    ended = batch(photos, "-f", "labels", "-f", "coco")
    out = tmp_path / "out"
    assert ended.code == 1
    failed = {name: line for name, line in by_input(out).items() if line["status"] == "failed"}
    assert list(failed) == ["bad.jpg", "garden/empty.png", "strip.png"]
    for (name, line), words in zip(failed.items(), ("something else", "0 bytes", "3000x2"), strict=True):
        assert words in line["error"]
        assert (line["outputs"], line["areas"]) == ([], {})
        assert f"cliper: error: {name}: {line['error']}" in ended.err.splitlines()
    assert len(ended.err.splitlines()) == 3
    assert "15 pictures: 12 done, 3 failed; " in ended.out
    assert len([name for name in tree(out) if name.endswith(".labels.png")]) == 12
    whole = json.loads((out / "coco.json").read_text())
    # The number of a picture is its place in the run, failed ones counted.
    ids = {line["input"]: number for number, line in enumerate(records(out), start=1)}
    assert {image["file_name"]: image["id"] for image in whole["images"]} == {
        name: number for name, number in ids.items() if name not in failed
    }


def test_pictures_whose_results_would_have_one_name(batch: Any, photos: Path, tmp_path: Path) -> None:
    shutil.copy(photos / "p000.png", photos / "p000.webp")
    shutil.copy(photos / "p000.png", photos / "run.png")
    (photos / "list.txt").write_text("p000.png\np000.webp\nrun.png\np000.png\n")
    ended = batch(photos / "list.txt", "-f", "labelme")
    assert ended.code == 1
    found = by_input(tmp_path / "out")
    assert {name: line["status"] for name, line in found.items()} == {
        "p000.png": "done",
        "p000.webp": "failed",
        "run.png": "failed",
        "p000.png#4": "failed",
    }
    assert "another picture's: p000.json; rename one" in found["p000.webp"]["error"]
    assert "a file of the run: run.json" in found["run.png"]["error"]
    assert "another picture of that name: p000.png" in found["p000.png#4"]["error"]
    assert json.loads((tmp_path / "out" / "run.json").read_text())["formats"] == ["labelme"]
    before = content(tmp_path / "out")
    assert batch(photos / "list.txt", "-f", "labelme", "--resume").code == 1
    assert content(tmp_path / "out") == before


def test_a_format_that_cannot_hold_a_picture(
    batch: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: Any
) -> None:
    monkeypatch.setattr("cliper.formats.overlay._FORMATS", {".webp": ("WEBP", 90, {"quality": 90})})
    ended = batch(photos, "-f", "labels", "-f", "overlay-webp")
    assert ended.code == 1
    found = by_input(tmp_path / "out")
    failed = [name for name, line in found.items() if line["status"] == "failed"]
    assert failed
    assert "at most 90 pixels a side" in found[failed[0]]["error"]
    # All files of a picture, or none.
    stems = {name.rpartition(".")[0] for name in failed}
    assert not [name for name in tree(tmp_path / "out") if name.split(".")[0] in stems]


# --- going on --------------------------------------------------------------------------------------------


def test_a_second_run_is_refused_or_goes_on(batch: Any, photos: Path, tmp_path: Path) -> None:
    (photos / "bad.jpg").write_text("no picture")
    out = tmp_path / "out"
    assert batch(photos).code == 1
    before = content(out)
    seconds = [line["seconds"] for line in records(out)]
    ended = batch(photos)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert "holds a run already; go on with it (--resume), begin anew (--overwrite)" in line
    ended = batch(photos, "--resume")
    assert ended.code == 1
    assert "13 pictures: 12 done, 12 of them earlier, 1 failed" in ended.out
    assert content(out) == before
    assert [line["seconds"] for line in records(out)] == seconds
    # What has gone, and what is new, is done; what was there stays.
    (out / "p000.labels.png").unlink()
    shutil.copy(photos / "p000.png", photos / "a new one.png")
    ended = batch(photos, "--resume")
    assert "14 pictures: 13 done, 11 of them earlier, 1 failed" in ended.out
    assert (out / "p000.labels.png").read_bytes() == before["p000.labels.png"]
    assert (out / "a new one.labels.png").read_bytes() == before["p000.labels.png"]


def test_what_failed_is_tried_again_where_that_is_asked_for(
    batch: Any, photos: Path, tmp_path: Path, make_picture: Draw
) -> None:
    (photos / "bad.jpg").write_text("no picture")
    (photos / "worse.jpg").write_text("no picture")
    assert batch(photos).code == 1
    make_picture().save(photos / "bad.jpg")
    assert batch(photos, "--resume").code == 1
    assert by_input(tmp_path / "out")["bad.jpg"]["status"] == "failed"
    ended = batch(photos, "--retry-failed")
    assert ended.code == 1
    assert "14 pictures: 13 done, 12 of them earlier, 1 failed" in ended.out
    found = by_input(tmp_path / "out")
    assert (found["bad.jpg"]["status"], found["worse.jpg"]["status"]) == ("done", "failed")
    assert list(found) == sorted(found, key=lambda name: name.split("/"))


@pytest.mark.parametrize(
    ("flags", "classes", "word"),
    [
        ([], "dog; cat", "classes"),
        (["-b", "none"], CLASSES, "background"),
        (["--scale", "7"], CLASSES, "settings.scale"),
        (["-r", "self"], CLASSES, "refiner"),
        (["--format", "labels"], CLASSES, "formats"),
        (["--min-area", "3"], CLASSES, "cleaning.min_area"),
        (["--tolerance", "2"], CLASSES, "tolerance"),
        (["--glob", "*.png"], CLASSES, "glob"),
    ],
)
def test_a_run_goes_on_only_as_it_began(
    batch: Any, photos: Path, tmp_path: Path, flags: list[str], classes: str, word: str
) -> None:
    assert batch(photos).code == 0
    before = content(tmp_path / "out")
    ended = batch(photos, "--resume", *flags, classes=classes)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert "holds a run with another" in line
    assert word in line
    assert content(tmp_path / "out") == before


def test_begin_anew(batch: Any, photos: Path, tmp_path: Path, tree: Any) -> None:
    out = tmp_path / "out"
    assert batch(photos, "-f", "overlay", "-f", "coco").code == 0
    (out / "mine.txt").write_text("not of the run")
    shutil.rmtree(photos / "garden" / "far")
    assert batch(photos, "-f", "labels", "--overwrite", classes="dog").code == 0
    names = [name for name in tree(out) if (out / name).is_file()]
    assert len([name for name in names if name.endswith(".labels.png")]) == 8
    assert not [name for name in names if name.endswith((".overlay.png", ".coco.json"))]
    assert "mine.txt" in names


def test_leftovers_of_a_killed_run_are_swept_up(batch: Any, photos: Path, tmp_path: Path, tree: Any) -> None:
    out = tmp_path / "out"
    assert batch(photos).code == 0
    before = tree(out)
    for name in (".0123456789abcdef.png", "garden/.fedcba9876543210.json", "garden/.00000000000000ff"):
        (out / name).write_bytes(b"half")
    (out / ".keep.png").write_bytes(b"mine")
    assert batch(photos, "--resume").code == 0
    assert set(tree(out)) == {*before, ".keep.png"}


# --- what is refused before any work ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--format", "cocoo"], "did you mean coco?"),
        (["--workers", "0"], "--workers: expected at least 1"),
        (["--resume", "--overwrite"], "got both"),
        (["--min-area", "-1"], "--min-area: expected at least 0"),
        (["--tolerance", "-1"], "tolerance: expected pixels"),
        (["--quality", "0"], "quality: expected"),
        (["--glob", "*.gif"], "the pattern of --glob matches none"),
        (["--every", "2"], "--every: it is for videos"),
        (["--overlay-video"], "--overlay-video: expected a video"),
        (["--address", "auto"], "--address: it is for --engine ray"),
        (["-m", "minni"], "minni"),
        (["-s", "nothing/like-it"], "nothing/like-it"),
    ],
)
def test_flags_that_cannot_be_used(
    batch: Any, photos: Path, tmp_path: Path, flags: list[str], words: str, tree: Any
) -> None:
    before = tree(tmp_path)
    ended = batch(photos, *flags)
    assert ended.code == 2
    assert words in ended.err
    assert len(ended.err.splitlines()) == 1
    assert tree(tmp_path) == before


def test_places_that_cannot_be_used(batch: Any, photos: Path, tmp_path: Path, make_picture: Draw) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("a file")
    for pictures, out, words in (
        (tmp_path / "nothing", None, "got nothing there"),
        (tmp_path / "empty", None, "expected pictures in"),
        (photos, photos, "expected another folder for results"),
        (photos, tmp_path / "file", "expected a folder that can be written"),
        (photos / "p000.png", None, "use `cliper segment`"),
    ):
        ended = batch(pictures, out=out)
        assert ended.code == 2, words
        (line,) = ended.err.splitlines()
        assert words in line
    assert not (tmp_path / "out").exists()


def test_a_class_that_a_format_cannot_hold(batch: Any, photos: Path, tmp_path: Path) -> None:
    ended = batch(photos, "--format", "cvat", classes="background; dog")
    assert ended.code == 2
    assert "CVAT's masks cannot have a class 'background'" in ended.err
    assert not (tmp_path / "out").exists()


def test_a_tar_that_is_cut_off_ends_the_run_but_keeps_what_was_done(
    batch: Any, tmp_path: Path, make_picture: Draw
) -> None:
    photos = make_photos(tmp_path / "photos", make_picture, 9)
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(photos, "photos")
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        cut = [member.offset for member in tar.getmembers() if member.isreg()][6] + 100
    path.write_bytes(whole[:cut])
    ended = batch(path)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert "expected a whole tar, got a damaged one" in line
    assert line.endswith(
        "after picture 6); fetch or make it again; what was done is kept, and the same command with --resume goes on"
    )
    assert len(records(tmp_path / "out")) == 6
    path.write_bytes(whole)
    ended = batch(path, "--resume")
    assert (ended.code, ended.err) == (0, "")
    assert "9 pictures: 9 done, 6 of them earlier" in ended.out
