"""``cliper batch`` from begin to end: what is written, what is resumed, what is refused."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliper.formats import read_label_png
from runs import CLASSES, Draw, by_input, content, records, statuses


def test_a_folder_of_images(batch: Any, photos: Path, tmp_path: Path, own_tiny: Any, tree: Any) -> None:
    ended = batch(photos)
    assert (ended.code, ended.err) == (0, "")
    out = tmp_path / "out"
    images = sorted(path for path in photos.rglob("*") if path.is_file())
    assert len(images) == 12
    expected = {"classes.txt", "manifest.jsonl", "run.json", "garden", "garden/far"}
    found = by_input(out)
    assert list(found) == [item["input"] for item in records(out)] == sorted(found, key=lambda name: name.split("/"))
    for path in images:
        name = path.relative_to(photos).as_posix()
        stem = name.rpartition(".")[0]
        result = own_tiny(path, CLASSES)
        line = found[name]
        assert line["outputs"] == [f"{stem}.labels.png", f"{stem}.overlay.jpg"]
        assert (line["status"], line["error"]) == ("done", None)
        assert line["areas"] == result.areas
        assert (line["width"], line["height"]) == result.image.size
        assert line["seconds"] > 0
        assert np.array_equal(read_label_png(out / line["outputs"][0]), result.labels)
        with Image.open(out / line["outputs"][1]) as overlay:  # JPEG of quality 90
            expected_overlay = np.asarray(result.overlay()).astype(int)
            assert np.abs(np.asarray(overlay) - expected_overlay).mean() < 4
        expected |= set(line["outputs"])
    assert set(tree(out)) == expected
    assert ended.out.splitlines()[0].startswith("model: ")
    assert ended.out.splitlines()[1].startswith("12 images: 12 done; ")
    assert f"wrote {out / 'manifest.jsonl'}" in ended.out.splitlines()


@pytest.mark.parametrize("kind", ["list", "tar", pytest.param("tar.gz", marks=pytest.mark.full)])
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
    assert batch(source, "-f", "labels", "-f", "overlay", "-f", "yolo").code == 0
    assert batch(photos, "-f", "labels", "-f", "overlay", "-f", "yolo", out=tmp_path / "folder").code == 0
    found, expected = content(tmp_path / "out"), content(tmp_path / "folder")
    assert [line["input"] for line in records(tmp_path / "out")] == names
    for one in (found, expected):
        del one["run.json"], one["manifest.jsonl"]
    assert found == expected


def test_the_summary_is_of_the_classes_found(batch: Any, photos: Path, tmp_path: Path) -> None:
    ended = batch(photos, "-f", "labels", "--score-threshold", 0.2)
    summary = json.loads((tmp_path / "out" / "run.json").read_text())["summary"]
    lines = records(tmp_path / "out")
    assert list(summary) == ["dog", "green grass", "person"]
    for name, values in summary.items():
        areas = [line["areas"][name] for line in lines if line["areas"][name] > 0]
        assert values["images"] == len(areas)
        assert values["mean_area"] == pytest.approx(np.mean(areas) if areas else 0, abs=1e-6)
        if areas:
            assert re.search(rf"^{name} +{len(areas)} +{100 * np.mean(areas):.1f} %", ended.out, re.MULTILINE)
    missing = [name for name, values in summary.items() if not values["images"]]
    assert (f"found in no image: {'; '.join(missing)}\n" in ended.out) is bool(missing)


def test_class_found_nowhere_has_its_best_reason(batch: Any, photos: Path, tmp_path: Path, own_tiny: Any) -> None:
    ended = batch(photos, "-f", "labels", "--score-threshold", 1)
    lines = records(tmp_path / "out")
    own = own_tiny.with_settings(own_tiny.settings.replace(score_threshold=1.0))
    summary = json.loads((tmp_path / "out" / "run.json").read_text())["summary"]
    for name, values in summary.items():
        confidence = max(line["confidence"][name] for line in lines)
        (line,) = (line for line in lines if line["confidence"][name] == confidence)
        assert values["absent"] == own(photos / line["input"], CLASSES).absent[name]
        assert f"\n  {name}, at best: {values['absent']}\n" in ended.out


@pytest.mark.full
def test_several_processes_give_the_same_files(batch: Any, photos: Path, tmp_path: Path) -> None:
    (photos / "bad.jpg").write_text("no image")
    flags = ["-f", "labels", "-f", "coco"]
    assert batch(photos, *flags).code == 1
    ended = batch(photos, *flags, "--workers", 2, out=tmp_path / "processes")
    assert (ended.code, len(ended.err.splitlines())) == (1, 1)
    assert content(tmp_path / "processes") == content(tmp_path / "out")


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.full)])
def test_notes_on_words_are_printed_once(command: Any, photos: Path, tmp_path: Path, workers: int) -> None:
    options = ("-m", "mini", "--size", 64, "-f", "labels", "--workers", workers)
    ended = command("batch", photos, "-c", "dog; Hund", "-o", tmp_path / "out", *options)
    assert ended.code == 0
    assert ended.err.count("Hund: not among the words that mini was taught") == 1


def test_labels_are_cleaned(batch: Any, photos: Path, tmp_path: Path, own_tiny: Any) -> None:
    flags = ["--min-area", 40, "--fill-holes", "--smooth-borders", 1]
    assert batch(photos, *flags).code == 0
    changed = 0
    for line in records(tmp_path / "out"):
        result = own_tiny(photos / line["input"], CLASSES)
        cleaned = result.clean(min_area=40, fill_holes=True, smooth=1)
        changed += not np.array_equal(result.labels, cleaned.labels)
        assert np.array_equal(read_label_png(tmp_path / "out" / line["outputs"][0]), cleaned.labels)
        assert line["areas"] == cleaned.areas
    assert changed > 0


def test_resume(batch: Any, photos: Path, tmp_path: Path, make_image: Draw) -> None:
    (photos / "bad.jpg").write_text("no image")
    (photos / "worse.jpg").write_text("no image")
    out = tmp_path / "out"
    assert batch(photos).code == 1
    before, lines = content(out), records(out)
    ended = batch(photos)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "holds a run already; continue it (--resume), start again (--overwrite)" in ended.err
    # What a killed run left half written is removed; an image that has become whole is not tried again.
    make_image().save(photos / "bad.jpg")
    for name in (".0123456789abcdef.png", "garden/.fedcba9876543210.json", "garden/.00000000000000ff"):
        (out / name).write_bytes(b"half")
    (out / ".keep.png").write_bytes(b"mine")
    ended = batch(photos, "--resume")
    assert ended.code == 1
    assert "14 images: 12 done, 12 of them earlier, 2 failed" in ended.out
    (out / ".keep.png").unlink()
    assert content(out) == before
    assert records(out) == lines
    # What has gone, and what is new, is done.
    (out / "p000.labels.png").unlink()
    shutil.copy(photos / "p000.png", photos / "a new one.png")
    ended = batch(photos, "--resume")
    assert "15 images: 13 done, 11 of them earlier, 2 failed" in ended.out
    assert (out / "p000.labels.png").read_bytes() == before["p000.labels.png"]
    assert (out / "a new one.labels.png").read_bytes() == before["p000.labels.png"]
    ended = batch(photos, "--retry-failed")
    assert ended.code == 1
    assert "15 images: 14 done, 13 of them earlier, 1 failed" in ended.out
    found = statuses(out)
    assert (found["bad.jpg"], found["worse.jpg"]) == ("done", "failed")
    assert list(found) == sorted(found, key=lambda name: name.split("/"))


def test_run_is_resumed_only_with_its_configuration(batch: Any, photos: Path, tmp_path: Path) -> None:
    assert batch(photos).code == 0
    before = content(tmp_path / "out")
    for flags, classes, word in (
        ("", "dog; cat", "classes"),
        ("-b none", CLASSES, "background"),
        ("--logit-scale 7", CLASSES, "settings.logit_scale"),
        ("-r self", CLASSES, "refiner"),
        ("--format labels", CLASSES, "formats"),
        ("--min-area 3", CLASSES, "cleaning.min_area"),
        ("--tolerance 2", CLASSES, "tolerance"),
        ("--glob *.png", CLASSES, "glob"),
    ):
        ended = batch(photos, "--resume", *flags.split(), classes=classes)
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert "holds a run that differs in" in ended.err
        assert word in ended.err
    assert content(tmp_path / "out") == before
