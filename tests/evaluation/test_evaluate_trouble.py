"""``cliper evaluate`` when something goes wrong: kills, broken images, wrong options, another run's folder."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliper.evaluation.task import EvaluationTask
from dataset_trees.own import own_arguments, own_data, report_of
from runs import descendants, ended, lines_written, start, wait_for_lines


@pytest.mark.full
@pytest.mark.parametrize("flags", [(), ("--workers", 2)])
def test_killed_and_resumed_run_has_the_same_matrix(
    command: Any, clip_folder: Path, tmp_path: Path, make_image: Any, flags: tuple[object, ...]
) -> None:
    own_data(tmp_path, 60, make_image)
    out, arguments = tmp_path / "killed", own_arguments(tmp_path, clip_folder)
    chance = random.Random(20)
    kills = 5 if flags else 20
    killed = 0
    for attempt in range(kills):
        process = start(*arguments, "-o", out, *flags, *(["--resume"] if attempt else []))
        wait_for_lines(out, min(60, lines_written(out) + chance.choice([1, 1, 2, 60 // kills])), process)
        workers = descendants(process.pid)
        process.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM]))
        killed += ended(process)[0] < 0
        until = time.monotonic() + 60
        while any(b"python" in cmdline(pid) for pid in workers):
            assert time.monotonic() < until, "a worker outlives its parent"
            time.sleep(0.05)
    assert killed >= kills // 2
    with (out / "manifest.jsonl").open("ab") as stream:
        stream.write(b'{"input": "a/000", "outp')  # as if it had been killed within a write
    before = lines_written(out)
    assert command(*arguments, "-o", out, *flags, "--resume").code == 0
    assert command(*arguments, "-o", tmp_path / "whole").code == 0
    killed_report, whole = report_of(out), report_of(tmp_path / "whole")
    assert killed_report["matrix"] == whole["matrix"]
    assert killed_report["images"] == whole["images"] == 60
    assert killed_report["this_run"]["images"] == 60 - before


def cmdline(pid: int) -> bytes:
    """Of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def spoil(root: Path) -> list[Path]:
    """Of five images: one that is none, one mask of another size, one with a label out of range."""
    bad = [root / "images" / "a" / "000.jpg", root / "masks" / "b" / "001.png", root / "masks" / "a" / "002.png"]
    bad[0].write_bytes(bad[0].read_bytes()[:300])
    Image.new("L", (9, 9)).save(bad[1])
    with Image.open(bad[2]) as mask:
        values = np.asarray(mask).copy()
    values[5, 5] = 77
    Image.fromarray(values).save(bad[2])
    return bad


def test_bad_images_and_masks_are_left_out(evaluate: Any, tmp_path: Path) -> None:
    whole = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    bad = spoil(tmp_path)
    stopped = evaluate(out="stopped")  # the default
    assert (stopped.code, stopped.err.count("\n")) == (2, 1)
    assert re.match(r"cliper: error: a/00\d: expected ", stopped.err)  # threads read: any may be the first
    assert not (tmp_path / "stopped" / "report.json").exists()
    ended = evaluate("--on-error", "skip")
    assert ended.code == 1
    lines = ended.err.splitlines()
    assert len(lines) == 3
    for path, words in zip(bad, ("complete image", "of the image's size", "labels 0 to 2 or 255, got 77"), strict=True):
        (line,) = [line for line in lines if str(path) in line]
        assert re.match(r"cliper: error: [ab]/00[0-2]: expected", line)
        assert words in line
    report = report_of(tmp_path / "out")
    assert (report["images"], report["skipped"]) == (2, 3)
    assert [item["name"] for item in report["skipped_images"]] == ["a/000", "a/002", "b/001"]
    # Mended, they are counted if that is asked for; what was counted is not counted again, unless its files changed.
    for path in bad:
        path.write_bytes(whole[path])
    assert evaluate("--on-error", "skip", "--resume").code == 1
    mask = tmp_path / "masks" / "b" / "003.png"
    values = np.asarray(Image.open(mask))[:, ::-1].copy()
    values[:8] = 255
    Image.fromarray(values).save(mask)
    assert evaluate("--on-error", "skip", "--retry-failed").code == 0
    report = report_of(tmp_path / "out")
    assert (report["images"], report["skipped"], report["this_run"]["images"]) == (5, 0, 4)
    assert evaluate(out="fresh").code == 0
    assert report["matrix"] == report_of(tmp_path / "fresh")["matrix"]


def test_image_that_crashes_its_decoder_is_left_out(
    evaluate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in [*tmp_path.glob("*/a/000.*")]:
        path.rename(path.with_stem("crash"))
    monkeypatch.setattr(EvaluationTask, "decoder", "hostile_decoders:file_decoder")
    ended = evaluate("--on-error", "skip")
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert "crash.jpg': it crashes its decoder (SIGSEGV); export it again" in ended.err
    assert report_of(tmp_path / "out")["images"] == 4


def test_run_is_resumed_only_with_its_configuration(evaluate: Any, tmp_path: Path) -> None:
    assert evaluate("--limit", 2).code == 0
    before = report_of(tmp_path / "out")
    ended = evaluate("--limit", 2)
    assert (ended.code, "holds a run already; continue it (--resume)" in ended.err) == (2, True)
    for flags in (
        "--limit 1",
        "--seed 1",
        "-b wall",
        "--refiner self",
        "--ignore 0",
        "--first-label 0",
        "--allow-tf32",
    ):
        ended = evaluate("--limit", 2, "--resume", *flags.split())
        assert (ended.code, "holds a run that differs in" in ended.err) == (2, True)
    assert report_of(tmp_path / "out") == before
    (tmp_path / "out" / "run.json").write_text("{")
    ended = evaluate("--limit", 2, "--resume")
    assert (ended.code, "cannot be read" in ended.err) == (2, True)
    assert evaluate("--limit", 2, "--logit-scale", 7, "--overwrite").code == 0
    after = report_of(tmp_path / "out")
    assert after["this_run"]["images"] == 2
    assert after["matrix"] != before["matrix"]


def test_second_run_in_a_folder_is_refused(evaluate: Any, tmp_path: Path) -> None:
    import fcntl

    assert evaluate("--limit", 2).code == 0
    other = os.open(tmp_path / "out", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    ended = evaluate("--limit", 2, "--resume")
    os.close(other)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "another run uses" in ended.err


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
        (("voc21", "--data", ".", "--limit", "0"), "'--limit': 0 is not in the range x>=1"),
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
