"""``cliper data verify`` and ``list``: complete, missing and unreadable data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliper.datasets import benchmark_names, find_benchmark
from cliper.datasets.verify import verify_data
from dataset_trees import NAMES, build_tree, exhaust_memory


def report_of(root: Path, name: str, *, full: bool = False) -> Any:
    return next(iter(verify_data(root, [name], full=full)))


@pytest.mark.parametrize("full", [False, True])
def test_all_benchmarks_in_one_root(full: bool, tmp_path: Path) -> None:
    for name in NAMES:
        build_tree(name, tmp_path)
    reports = list(verify_data(tmp_path, NAMES, full=full))
    assert [report.benchmark.name for report in reports] == list(NAMES)
    assert [report.valid for report in reports] == [6 if name == "cityscapes" else 3 for name in NAMES]
    for report in reports:
        assert (report.missing, report.unreadable, report.absent) == ((), (), "")
        assert not report.complete  # three images are fewer than published


@pytest.mark.parametrize("sizes", [(3,), (9, 3)])
def test_accepted_size_is_complete(
    sizes: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Any]
) -> None:
    build_tree("ade150", tmp_path)
    small = replace(find_benchmark("ade150"), accepted_sizes=sizes)
    monkeypatch.setattr("cliper.datasets.verify.find_benchmark", lambda name: small)
    assert report_of(tmp_path, "ade150").complete
    done = command("data", "verify", tmp_path, "ade150")
    assert (done.code, done.err) == (0, "")
    assert "ade150: complete; 3 valid samples" in done.out


def test_missing_files_are_named(tmp_path: Path, command: Callable[..., Any]) -> None:
    build_tree("voc21", tmp_path)
    samples = find_benchmark("voc21").samples(tmp_path)
    samples[0].image.unlink()
    samples[2].mask.unlink()
    report = report_of(tmp_path, "voc21")
    assert report.valid == 1
    assert report.missing == (str(samples[0].image), str(samples[2].mask))
    done = command("data", "verify", tmp_path, "voc21")
    assert done.code == 1
    assert [str(path) in done.err for path in (samples[0].image, samples[2].mask)] == [True, True]
    assert "1 valid samples, expected 1,449; 2 files missing, 0 unreadable" in done.out


@pytest.mark.parametrize("data", [b"", b"version https://git-lfs", b"<html>"])
def test_wrong_magic_bytes_are_found_without_decoding(data: bytes, tmp_path: Path) -> None:
    build_tree("cityscapes", tmp_path)
    mask = find_benchmark("cityscapes").samples(tmp_path)[2].mask
    mask.write_bytes(data)
    report = report_of(tmp_path, "cityscapes")
    assert report.valid == 4  # both halves are invalid
    assert len(report.unreadable) == 1
    assert str(mask) in report.unreadable[0]


@pytest.mark.parametrize("damage", ["cut", "size", "label"])
def test_full_verification_finds_damage_inside_files(damage: str, tmp_path: Path) -> None:
    build_tree("coco-stuff171", tmp_path)
    mask = find_benchmark("coco-stuff171").samples(tmp_path)[1].mask
    values = np.array(Image.open(mask))
    if damage == "cut":
        mask.write_bytes(mask.read_bytes()[:-40])
    elif damage == "size":
        Image.fromarray(values[1:]).save(mask)
    else:
        values[3, 4] = 200
        Image.fromarray(values).save(mask)
    assert report_of(tmp_path, "coco-stuff171").unreadable == ()
    report = report_of(tmp_path, "coco-stuff171", full=True)
    assert report.valid == 2
    assert len(report.unreadable) == 1
    assert str(mask) in report.unreadable[0]


def test_image_for_which_memory_runs_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_tree("voc21", tmp_path)
    image = find_benchmark("voc21").samples(tmp_path)[1].image
    exhaust_memory(monkeypatch, image)
    report = report_of(tmp_path, "voc21", full=True)
    assert report.valid == 2
    assert len(report.unreadable) == 1
    assert str(image) in report.unreadable[0]
    assert "memory ran out" in report.unreadable[0]


def test_benchmarks_with_the_same_files_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_tree("context60", tmp_path)
    titles: list[str] = []

    def progress(samples: Any, title: str) -> Any:
        titles.append(title)
        return samples

    reports = list(verify_data(tmp_path, ["context60", "context59"], full=True, progress=progress))
    assert [report.valid for report in reports] == [3, 3]
    assert titles == ["context60"]


def test_missing_benchmark_fails_only_if_named(tmp_path: Path, command: Callable[..., Any]) -> None:
    build_tree("ade150", tmp_path)
    everything = command("data", "verify", tmp_path)
    assert everything.out.count("missing; expected its data at") == 7
    assert "ade150: incomplete; 3 valid samples, expected 2,000" in everything.out
    assert everything.code == 1
    named = command("data", "verify", tmp_path, "voc21")
    assert named.code == 2
    assert command("data", "verify", tmp_path / "no").code == 2


def test_list_of_problems_is_limited(tmp_path: Path, command: Callable[..., Any]) -> None:
    build_tree("voc21", tmp_path)
    names = "\n".join(f"2009_{i:06d}" for i in range(30))
    (tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").write_text(names)
    done = command("data", "verify", tmp_path, "voc21")
    assert done.err.count("\n") == 11
    assert "error: 50 more" in done.err
    assert "60 files missing" in done.out


def test_unknown_name_gets_a_suggestion(tmp_path: Path, command: Callable[..., Any]) -> None:
    done = command("data", "verify", tmp_path, "voc")
    assert done.code == 2
    assert "did you mean voc2" in done.err


def test_list_shows_all_benchmarks(command: Callable[..., Any]) -> None:
    done = command("data", "list")
    assert done.code == 0
    rows = done.out.splitlines()[1:]
    assert [row.split()[0] for row in rows] == benchmark_names()
    assert "5,104 or 5,105" in rows[2]
    assert ["not counted" in row for row in rows] == [0 in find_benchmark(name).ignore for name in benchmark_names()]
