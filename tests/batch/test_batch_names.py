"""Where results would have one name, or that of an earlier run's: nothing is lost, and whoever can be done is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import cliper
from cliper.batch.task import SegmentTask
from cliper.formats import format_names
from cliper.model_config import ModelConfig
from runs import Draw, by_input, content, records, statuses


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def test_the_first_of_two_images_of_one_stem_is_done(
    batch: Any, folder: Path, tmp_path: Path, make_image: Draw
) -> None:
    make_image(seed=1).save(folder / "b.png")
    assert batch(folder, "-f", "labels").code == 0
    before = content(tmp_path / "out")
    make_image(seed=2).save(folder / "b.bmp")  # earlier in the listing
    for _ in range(2):
        ended = batch(folder, "-f", "labels", "--resume")
        assert ended.code == 1
        assert "error: b.png: another image has the same output name: b.bmp; rename one" in ended.err
        assert statuses(tmp_path / "out") == {"b.bmp": "done", "b.png": "failed"}
        assert content(tmp_path / "out")["b.labels.png"] != before["b.labels.png"]
    # Once the first has gone, the second is done.
    (folder / "b.bmp").unlink()
    assert batch(folder, "-f", "labels", "--resume").code == 0
    assert statuses(tmp_path / "out") == {"b.png": "done"}
    assert content(tmp_path / "out") == before


def test_formats_do_not_share_names(batch: Any, folder: Path, tmp_path: Path, make_image: Draw) -> None:
    for number, name in enumerate(("a.jpg", "a.coco.jpg", "x.jpg", "x.gallery.jpg", "x.label-studio.jpg")):
        make_image(seed=number).save(folder / name)
    flags = [flag for name in ("coco", "labelme", "gallery", "label-studio") for flag in ("-f", name)]
    assert batch(folder, *flags).code == 1
    assert statuses(tmp_path / "out") == {
        "a.coco.jpg": "failed",
        "a.jpg": "done",
        "x.gallery.jpg": "failed",
        "x.jpg": "done",
        "x.label-studio.jpg": "failed",
    }
    error = by_input(tmp_path / "out")["a.coco.jpg"]["error"]
    assert error == "its result could have the name of another image's: a.coco ends in .coco; rename it"
    assert batch(folder, "-f", "labelme", out=tmp_path / "one").code == 0


def test_formats_of_a_folder_do_not_share_names_with_the_others(
    batch: Any, folder: Path, tmp_path: Path, make_image: Draw
) -> None:
    (folder / "masks").mkdir()
    for number, name in enumerate(("a.labels.jpg", "masks/a.jpg")):
        make_image(seed=number).save(folder / name)
    assert batch(folder, "-f", "yolo-semantic", "-f", "labels").code == 1
    assert statuses(tmp_path / "out") == {"a.labels.jpg": "done", "masks/a.jpg": "failed"}
    error = by_input(tmp_path / "out")["masks/a.jpg"]["error"]
    assert error == "its result could have the name of another image's: masks/a is in masks/; rename it"
    assert batch(folder, "-f", "yolo-semantic", out=tmp_path / "one").code == 0


def test_files_of_the_run_are_its_own(batch: Any, folder: Path, tmp_path: Path, make_image: Draw) -> None:
    for name in ("label-studio.jpg", "coco.jpg", "manifest.jpg", "run.jpg"):
        make_image().save(folder / name)
    assert batch(folder, "-f", "labelme", "-f", "label-studio").code == 1
    failed = [name for name, one in statuses(tmp_path / "out").items() if one == "failed"]
    assert failed == ["label-studio.jpg", "run.jpg"]
    assert isinstance(json.loads((tmp_path / "out" / "label-studio.json").read_text()), list)
    (folder / "coco.json").mkdir()
    make_image().save(folder / "coco.json" / "a.jpg")
    ended = batch(folder, "-f", "coco", out=tmp_path / "coco")
    assert ended.code == 1
    assert (
        "coco.json/a.jpg: its result would have the name of a file of the run: coco.json; rename it, or use --glob"
        in ended.err
    )
    assert len(json.loads((tmp_path / "coco" / "coco.json").read_text())["images"]) == 4


def test_formats_name_all_files_of_the_run(
    batch: Any, photos: Path, tmp_path: Path, tree: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cliper.formats.cvat._IMAGES_PER_ZIP", 5)
    monkeypatch.setattr("cliper.formats.gallery._IMAGES_PER_PAGE", 5)
    assert batch(photos, *[flag for name in format_names() for flag in ("-f", name)]).code == 0
    out = tmp_path / "out"
    own = {name for line in records(out) for name in line["outputs"]} | {"run.json", "manifest.jsonl"}
    others = {name for name in tree(out) if (out / name).is_file()} - own
    assert {"cvat-3.zip", "gallery/pages/3.js", "coco.json"} <= others
    assert sorted(others) == json.loads((out / "run.json").read_text())["run_files"]
    task = SegmentTask((), None, tuple(format_names()), ModelConfig("", cliper.Settings()))
    for name in others:  # a folder of images of that name would be in the way
        assert "a file of the run" in str(task.check_name(f"{name}/a"))


@pytest.mark.parametrize("again", [["--overwrite", "-f", "coco"], ["--resume", "-f", "coco", "-f", "cvat"]])
def test_files_of_the_run_that_are_not_made_again(
    batch: Any, photos: Path, tmp_path: Path, tree: Any, monkeypatch: pytest.MonkeyPatch, again: list[str]
) -> None:
    monkeypatch.setattr("cliper.formats.cvat._IMAGES_PER_ZIP", 5)
    assert batch(photos, "-f", "coco", "-f", "cvat").code == 0
    (tmp_path / "out" / "mine.txt").write_text("not of the run")
    shutil.rmtree(photos / "garden")
    assert batch(photos, *again).code == 0
    found = [name for name in tree(tmp_path / "out") if (tmp_path / "out" / name).is_file()]
    others = {name for name in found if not name.startswith(("p0", "garden/"))}
    # Results of images that have gone stay where a run is resumed.
    expected = {"run.json", "manifest.jsonl", "mine.txt", "coco.json", *(["cvat.zip"] if "cvat" in again else [])}
    assert others == expected
    assert any(name.startswith("garden/") for name in found) is ("--resume" in again)


@pytest.mark.parametrize(
    "name",
    [
        "coco",
        "gallery",
        *(pytest.param(name, marks=pytest.mark.full) for name in ("coco-panoptic", "cvat", "label-studio")),
    ],
)
def test_damaged_files_are_made_again(batch: Any, photos: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    assert batch(photos, "-f", name, "-f", "labels").code == 0
    before = content(out)
    for image in ("p003.jpg", "garden/p004.png"):
        (out / by_input(out)[image]["outputs"][0]).write_bytes(b"")
    ended = batch(photos, "-f", name, "-f", "labels", "--resume")
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert line.endswith("finished images are kept; the same command with --resume continues")
    ended = batch(photos, "-f", name, "-f", "labels", "--resume")
    assert (ended.code, ended.err) == (0, "")
    assert "12 images: 12 done, 10 of them earlier" in ended.out
    assert content(out) == before


def test_a_folder_of_an_evaluation_is_refused(batch: Any, photos: Path, tmp_path: Path, tree: Any) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "run.json").write_text('{"task": "evaluate"}')
    for flags in ([], ["--overwrite"], ["--resume"]):
        ended = batch(photos, *flags)
        assert ended.code == 2
        (line,) = ended.err.splitlines()
        assert "holds a run of another kind (evaluate, not batch)" in line
        assert tree(out) == ["run.json"]


# --- the same in an object store -------------------------------------------------------------------------


@pytest.mark.parametrize("relative", [False, True])
def test_labelme_finds_images_of_a_folder_and_a_list(
    batch: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (photos / "list.txt").write_text(f"p000.png\n{photos}/garden/p001.jpg\n")
    for number, source in enumerate((photos, photos / "list.txt")):
        out = tmp_path / "deep" / f"out{number}"
        given = source.relative_to(tmp_path) if relative else source
        assert batch(given, "-f", "labelme", out=out.relative_to(tmp_path) if relative else out).code == 0
        found = list(out.rglob("p*.json"))
        assert len(found) == (12, 2)[number]
        for path in found:
            image = path.parent / json.loads(path.read_text())["imagePath"]
            assert image.samefile(next(photos.rglob(f"{path.stem}.*")))
