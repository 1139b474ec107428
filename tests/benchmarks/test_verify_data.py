"""``cliper data verify`` and ``list``: what is there, what is missing, what cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliper.benchmarks import benchmark_names, find_benchmark
from cliper.benchmarks.verify import verify_data
from dataset_trees import NAMES, build_tree


def report_of(root: Path, name: str, *, deep: bool = False) -> Any:
    return next(iter(verify_data(root, [name], deep=deep)))


@pytest.mark.parametrize("deep", [False, True])
def test_all_eight_at_once(deep: bool, tmp_path: Path) -> None:
    for name in NAMES:
        build_tree(name, tmp_path)
    reports = list(verify_data(tmp_path, NAMES, deep=deep))
    assert [report.benchmark.name for report in reports] == list(NAMES)
    assert [report.found for report in reports] == [6 if name == "cityscapes" else 3 for name in NAMES]
    for report in reports:
        assert (report.missing, report.unreadable, report.absent) == ((), (), "")
        assert not report.whole  # three pictures are not the published number


@pytest.mark.parametrize("sizes", [(3, ()), (9, (3,))])
def test_whole_is_a_published_count(
    sizes: tuple[int, tuple[int, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Any]
) -> None:
    build_tree("ade150", tmp_path)
    from dataclasses import replace

    small = replace(find_benchmark("ade150"), size=sizes[0], also_sizes=sizes[1])
    monkeypatch.setattr("cliper.benchmarks.verify.find_benchmark", lambda name: small)
    assert report_of(tmp_path, "ade150").whole
    done = command("data", "verify", tmp_path, "ade150")
    assert (done.code, done.err) == (0, "")
    assert "ade150: complete; 3 samples" in done.out


def test_missing_files_are_named(tmp_path: Path, command: Callable[..., Any]) -> None:
    build_tree("voc21", tmp_path)
    samples = find_benchmark("voc21").samples(tmp_path)
    samples[0].image.unlink()
    samples[2].mask.unlink()
    report = report_of(tmp_path, "voc21")
    assert report.found == 1
    assert report.missing == (str(samples[0].image), str(samples[2].mask))
    done = command("data", "verify", tmp_path, "voc21")
    assert done.code == 1
    assert [str(path) in done.err for path in (samples[0].image, samples[2].mask)] == [True, True]
    assert "1 samples, expected 1,449; 2 files missing, 0 unreadable" in done.out


@pytest.mark.parametrize("data", [b"", b"version https://git-lfs", b"<html>"])
def test_a_file_of_something_else_is_found_without_decoding(data: bytes, tmp_path: Path) -> None:
    build_tree("cityscapes", tmp_path)
    mask = find_benchmark("cityscapes").samples(tmp_path)[2].mask
    mask.write_bytes(data)
    report = report_of(tmp_path, "cityscapes")
    assert report.found == 4  # both halves are lost
    assert len(report.unreadable) == 1
    assert str(mask) in report.unreadable[0]


@pytest.mark.parametrize("damage", ["cut", "size", "label"])
def test_deep_finds_what_a_look_does_not(damage: str, tmp_path: Path) -> None:
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
    report = report_of(tmp_path, "coco-stuff171", deep=True)
    assert report.found == 2
    assert len(report.unreadable) == 1
    assert str(mask) in report.unreadable[0]


def test_what_shares_its_files_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_tree("context60", tmp_path)
    looked: list[str] = []

    def track(samples: Any, what: str) -> Any:
        looked.append(what)
        return samples

    reports = list(verify_data(tmp_path, ["context60", "context59"], deep=True, track=track))
    assert [report.found for report in reports] == [3, 3]
    assert looked == ["context60"]


def test_absent_ones_are_no_failure_unless_named(tmp_path: Path, command: Callable[..., Any]) -> None:
    build_tree("ade150", tmp_path)
    everything = command("data", "verify", tmp_path)
    assert everything.out.count("not here; expected its data at") == 7
    assert "ade150: not complete; 3 samples, expected 2,000" in everything.out
    assert everything.code == 1
    named = command("data", "verify", tmp_path, "voc21")
    assert named.code == 2
    assert command("data", "verify", tmp_path / "no").code == 2


def test_many_problems_are_counted_not_listed(tmp_path: Path, command: Callable[..., Any]) -> None:
    build_tree("voc21", tmp_path)
    names = "\n".join(f"2009_{i:06d}" for i in range(30))
    (tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").write_text(names)
    done = command("data", "verify", tmp_path, "voc21")
    assert done.err.count("\n") == 11
    assert "error: 50 more" in done.err
    assert "60 files missing" in done.out


def test_an_unknown_name(tmp_path: Path, command: Callable[..., Any]) -> None:
    done = command("data", "verify", tmp_path, "voc")
    assert done.code == 2
    assert "did you mean voc2" in done.err


def test_list_has_them_all(command: Callable[..., Any]) -> None:
    done = command("data", "list")
    assert done.code == 0
    rows = done.out.splitlines()[1:]
    assert [row.split()[0] for row in rows] == benchmark_names()
    assert "5,104 or 5,105" in rows[2]
    assert ["not counted" in row for row in rows] == [0 in find_benchmark(name).ignore for name in benchmark_names()]
