"""``cliper evaluate`` when something goes wrong: kills, broken pictures, wrong options, another run's folder."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliper.settings import presets
from dataset_trees import build_tree
from dataset_trees.own import own_arguments, own_data, report_of


@pytest.mark.full
def test_killed_and_started_again_it_ends_with_the_same_matrix(
    command: Any, clip_folder: Path, tmp_path: Path, make_image: Any
) -> None:
    own_data(tmp_path, 60, make_image)
    arguments = [str(a) for a in (*own_arguments(tmp_path, clip_folder), "-o", tmp_path / "killed")]
    log = tmp_path / "killed" / "manifest.jsonl"
    counts = []
    for wanted in (3, 20):
        process = subprocess.Popen(
            [sys.executable, "-m", "cliper", *arguments, *(["--resume"] if counts else [])],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        give_up = time.monotonic() + 120
        while not log.exists() or log.read_bytes().count(b"\n") < wanted:
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < give_up
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        counts.append(log.read_bytes().count(b"\n"))
    assert counts[0] < counts[1] < 60
    with log.open("ab") as stream:
        stream.write(b'{"input": "a/000", "outp')  # as if it had been killed within a write
    again = command(*arguments, "--resume")
    assert (again.code, again.err) == (0, "")
    assert command(*own_arguments(tmp_path, clip_folder), "-o", tmp_path / "whole").code == 0
    killed, whole = report_of(tmp_path / "killed"), report_of(tmp_path / "whole")
    assert killed["matrix"] == whole["matrix"]
    assert killed["images"] == whole["images"] == 60
    assert killed["this_run"]["images"] == 60 - counts[1]
    # Once more there is nothing to do, and with more workers neither.
    assert command(*arguments, "--workers", 2, "--resume").code == 0
    assert report_of(tmp_path / "killed")["this_run"]["images"] == 0
    assert report_of(tmp_path / "killed")["matrix"] == whole["matrix"]


def spoil(root: Path) -> list[Path]:
    """Of five pictures: one that is none, one mask of another size, one with a label out of range."""
    bad = [root / "images" / "a" / "000.jpg", root / "masks" / "b" / "001.png", root / "masks" / "a" / "002.png"]
    bad[0].write_bytes(bad[0].read_bytes()[:300])
    Image.new("L", (9, 9)).save(bad[1])
    with Image.open(bad[2]) as mask:
        values = np.asarray(mask).copy()
    values[5, 5] = 77
    Image.fromarray(values).save(bad[2])
    return bad


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.full)])
def test_bad_pictures_are_named_and_left_out(
    command: Any, clip_folder: Path, tmp_path: Path, make_image: Any, workers: int
) -> None:
    own_data(tmp_path, 5, make_image)
    whole = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    bad = spoil(tmp_path)
    out = tmp_path / "out"
    arguments = (*own_arguments(tmp_path, clip_folder), "--on-error", "skip", "-o", out)
    ended = command(*arguments, "--workers", workers)
    assert ended.code == 1
    lines = ended.err.splitlines()
    assert len(lines) == 3
    for path, words in zip(bad, ("complete image", "of the image's size", "labels 0 to 2 or 255, got 77"), strict=True):
        (line,) = [line for line in lines if str(path) in line]
        assert re.match(r"cliper: error: [ab]/00[0-2]: expected", line)
        assert words in line
    report = report_of(out)
    assert (report["images"], report["skipped"]) == (2, 3)
    assert [item["name"] for item in report["skipped_images"]] == ["a/000", "a/002", "b/001"]
    # Mended, they are counted if that is asked for; what was counted is not counted again.
    for path in bad:
        path.write_bytes(whole[path])
    assert command(*arguments, "--resume").code == 1
    assert command(*arguments, "--retry-failed").code == 0
    report = report_of(out)
    assert (report["images"], report["skipped"], report["this_run"]["images"]) == (5, 0, 3)
    assert command(*own_arguments(tmp_path, clip_folder), "-o", tmp_path / "fresh").code == 0
    assert report["matrix"] == report_of(tmp_path / "fresh")["matrix"]


def test_by_default_a_bad_picture_ends_the_run(
    command: Any, clip_folder: Path, tmp_path: Path, make_image: Any
) -> None:
    own_data(tmp_path, 5, make_image)
    bad = spoil(tmp_path)
    ended = command(*own_arguments(tmp_path, clip_folder), "-o", tmp_path / "out")
    assert ended.code == 2
    assert ended.err.startswith("cliper: error: a/000: expected a complete image")
    assert str(bad[0]) in ended.err
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "out" / "report.json").exists()


def test_two_runs_at_once_do_not_share_a_folder(
    command: Any, clip_folder: Path, tmp_path: Path, make_image: Any
) -> None:
    import fcntl

    own_data(tmp_path, 2, make_image)
    arguments = (*own_arguments(tmp_path, clip_folder), "-o", tmp_path / "out")
    assert command(*arguments).code == 0
    other = os.open(tmp_path / "out", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    ended = command(*arguments, "--resume")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "another run uses" in ended.err
    os.close(other)
    assert command(*arguments, "--resume").code == 0


def test_another_evaluation_is_not_mixed_in(command: Any, clip_folder: Path, tmp_path: Path, make_image: Any) -> None:
    own_data(tmp_path, 2, make_image)
    out = tmp_path / "out"
    arguments = (*own_arguments(tmp_path, clip_folder), "-o", out)
    assert command(*arguments).code == 0
    before = report_of(out)
    ended = command(*arguments)
    assert (ended.code, "holds a run already; continue it (--resume)" in ended.err) == (2, True)
    for more in (
        ("--logit-scale", 7),
        ("--seed", 1),
        ("--limit", 1),
        ("-b", "wall"),
        ("--refiner", "self"),
        ("--ignore", 0),
        ("--first-label", 0),
    ):
        ended = command(*arguments, "--resume", *more)
        assert ended.code == 2
        assert "holds a run with another" in ended.err
    assert report_of(out) == before
    (out / "run.json").write_text("{")
    ended = command(*arguments, "--resume")
    assert (ended.code, "cannot be read" in ended.err) == (2, True)
    assert command(*arguments, "--logit-scale", 7, "--overwrite").code == 0
    after = report_of(out)
    assert after["this_run"]["images"] == 2
    assert after["matrix"] != before["matrix"]


def test_a_mask_that_was_replaced_is_counted_anew(
    command: Any, clip_folder: Path, tmp_path: Path, make_image: Any
) -> None:
    own_data(tmp_path, 3, make_image)
    arguments = (*own_arguments(tmp_path, clip_folder), "-o", tmp_path / "out")
    assert command(*arguments).code == 0
    before = report_of(tmp_path / "out")
    mask = tmp_path / "masks" / "a" / "000.png"
    with Image.open(mask) as old:
        turned = np.asarray(old)[:, ::-1].copy()
    turned[:8] = 255  # fewer pixels count: the matrix differs whatever the model finds
    Image.fromarray(turned).save(mask)
    assert command(*arguments, "--resume").code == 0
    after = report_of(tmp_path / "out")
    assert after["this_run"]["images"] == 1
    assert after["matrix"] != before["matrix"]
    assert command(*own_arguments(tmp_path, clip_folder), "-o", tmp_path / "fresh").code == 0
    assert after["matrix"] == report_of(tmp_path / "fresh")["matrix"]


def children_of(pid: int) -> list[int]:
    """Processes that a process has started and that are alive (Linux)."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.full
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_a_parent_that_is_killed(
    command: Any, clip_folder: Path, tmp_path: Path, make_image: Any, how: signal.Signals
) -> None:
    own_data(tmp_path, 60, make_image)
    out = tmp_path / "killed"
    arguments = [str(a) for a in (*own_arguments(tmp_path, clip_folder), "-o", out, "--workers", 2)]
    process = subprocess.Popen(
        [sys.executable, "-m", "cliper", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    give_up = time.monotonic() + 120
    log = out / "manifest.jsonl"
    while not log.exists() or log.read_bytes().count(b"\n") < 3:
        assert process.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.005)
    workers = children_of(process.pid)
    assert len(workers) >= 2
    os.kill(process.pid, how)
    process.wait()
    while any(is_alive(pid) for pid in workers):
        assert time.monotonic() < give_up
        time.sleep(0.05)
    assert command(*arguments, "--resume").code == 0
    assert command(*own_arguments(tmp_path, clip_folder), "-o", tmp_path / "whole").code == 0
    assert report_of(out)["matrix"] == report_of(tmp_path / "whole")["matrix"]
    assert 0 < report_of(out)["this_run"]["images"] < 58


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "expected a preset, a benchmark, or --images and --masks"),
        (("voc22", "--data", "."), "expected a benchmark, one of voc21, voc20, .* got 'voc22'; did you mean voc2"),
        (("vit-b-16/voc22", "--data", "."), "no preset is called 'vit-b-16/voc22'; near it: vit-b-16/voc21"),
        (("voc21",), "expected the root folder of the data sets, got none; give --data FOLDER"),
        (("voc21", "--data", "nowhere"), "VOC: expected its data at 'nowhere/.*val.txt', got nothing there"),
        (("voc21", "--images", "a"), "--images is for your own data, in place of a benchmark"),
        (("--images", "a"), "--masks: expected it, got none"),
        (("voc21", "--data", ".", "--contact-sheet", "2"), "--contact-sheet: expected a folder"),
        (("voc21", "--data", ".", "--limit", "0"), "limit: expected at least 1, got 0"),
        (("voc21", "--data", ".", "--refiner", "sd9"), "no refiner is called 'sd9'"),
        (("voc21", "--data", ".", "--ablation", "--attentions", "q-p"), "attention: expected some of fused"),
        (("voc21", "--data", ".", "--ablation", "--refiners", ","), "expected at least one attention"),
        (("voc21", "--data", ".", "--refiners", "self"), "--refiners is for an ablation; give --ablation"),
        (("voc21", "--data", ".", "--ignore", "3"), "--ignore is for your own data"),
        (("voc21", "--data", ".", "-b", "wall"), "--background is for your own data"),
        (("voc21", "--data", ".", "--contact-sheet", "-1", "-o", "x"), "-1 is not in the range"),
    ],
)
def test_wrong_options_are_one_line(command: Any, arguments: tuple[str, ...], words: str) -> None:
    ended = command("evaluate", *arguments)
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.count("\n") == 1
    assert re.search(words, ended.err), ended.err


def test_workers_below_one(command: Any, clip_folder: Path, tmp_path: Path) -> None:
    build_tree("voc21", tmp_path)
    ended = command("evaluate", "voc21", "--data", tmp_path, "-m", clip_folder, "--workers", 0)
    assert (ended.code, "'--workers': 0 is not in the range x>=1" in ended.err) == (2, True)


def test_benchmarks_are_listed(command: Any) -> None:
    ended = command("benchmarks")
    assert ended.code == 0
    rows = {cells[0]: cells[1:] for cells in map(str.split, ended.out.splitlines())}
    assert rows["vit-l-14/voc21"] == ["ViT-L/14", "sd2.1", "71.6", "62.5"]
    assert rows["vit-l-14/voc21-preprint"] == ["ViT-L/14", "sd2.1", "70.2", "70.158"]
    assert rows["vit-h-14/voc21-windows"] == ["ViT-H/14", "sd2.1"]
    lines = [json.loads(line) for line in command("benchmarks", "--json").out.splitlines()]
    published = {line["name"]: line["published"] for line in lines}
    assert sorted(published) == presets()
    assert published["vit-l-14/voc21-preprint"] == {"miou": 70.2, "miou_logged": 70.158}
