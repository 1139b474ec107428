"""Killed at any moment and gone on with, a run ends with the files of one that was left alone."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from PIL import Image

from runs import CLASSES, Draw, content, ended, lines_written, make_photos, records, said, start, wait_for_lines

pytestmark = pytest.mark.full  # processes of their own, which load what they need each time

FLAGS = ("-f", "labels", "-f", "overlay", "-f", "coco", "-f", "gallery", "--threads", "2")


@pytest.fixture
def many(tmp_path: Path, make_image: Draw) -> Path:
    """150 images, three of them broken, one with a name that is no text."""
    folder = make_photos(tmp_path / "photos", make_image, 150)
    (folder / "p003.jpg").rename(folder / os.fsdecode(b"caf\xe9.jpg"))
    for name in ("garden/p001.jpg", "p060.png", "garden/far/p149.jpg"):
        (folder / name).write_bytes((folder / name).read_bytes()[:500])
    return folder


def test_killed_at_random_moments(many: Path, clip_folder: Path, tmp_path: Path) -> None:
    kills = 20
    arguments = ["batch", many, "-c", CLASSES, "-m", clip_folder, *FLAGS, "-o"]
    assert ended(start(*arguments, tmp_path / "undisturbed"))[0] == 1
    out = tmp_path / "out"
    chance = random.Random(kills)
    killed = 0
    for attempt in range(kills):
        process = start(*arguments, out, *(["--resume"] if attempt else []))
        # After so many images more, or at the end, where what is about all images is made; and a moment later.
        more = chance.choice([1, 1, 2, 150 // kills, 150])
        wait_for_lines(out, min(150, lines_written(out) + more), process)
        time.sleep(chance.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        killed += ended(process)[0] == -signal.SIGKILL
    assert killed >= kills // 2
    assert ended(start(*arguments, out, "--resume"))[0] == 1
    assert content(out) == content(tmp_path / "undisturbed")
    assert sum(line["status"] == "failed" for line in records(out)) == 3


@pytest.mark.parametrize("workers", ["1", "2"])
def test_interrupted(many: Path, clip_folder: Path, tmp_path: Path, workers: str) -> None:
    out = tmp_path / "out"
    arguments = ["batch", many, "-c", CLASSES, "-m", clip_folder, *FLAGS, "--workers", workers, "-o", out]
    process = start(*arguments)
    wait_for_lines(out, 5, process)
    process.send_signal(signal.SIGINT)
    code, _, errors = ended(process)
    assert code == 130
    lines = [line for line in said(errors) if ": error: " not in line]
    assert lines == ["cliper: interrupted; finished images are kept; the same command with --resume continues"]
    done = [line for line in records(out) if line["status"] == "done"]
    assert 0 < len(done) < 147
    # Nothing is half-written, and nothing was written that the manifest does not know.
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert files == {"manifest.jsonl", "run.json", *(name for line in done for name in line["outputs"])}
    for line in done:
        with Image.open(out / line["outputs"][1]) as image:
            image.load()
    assert ended(start(*arguments, "--resume"))[0] == 1
    assert len(records(out)) == 150


def test_a_second_interrupt_does_not_wait_for_files(clip_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(6):  # as PNG, each takes seconds to encode
        Image.effect_noise((4000, 3000), 90).save(tmp_path / "photos" / f"{number}.jpg")
    out = tmp_path / "out"
    arguments = [
        "batch",
        tmp_path / "photos",
        "-c",
        "dog",
        "-m",
        clip_folder,
        "-f",
        "overlay",
        "--threads",
        "1",
        "-o",
        out,
    ]
    process = start(*arguments)
    wait_for_lines(out, 1, process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 130
    assert ended(start(*arguments, "--resume"))[0] == 0
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]


def test_two_runs_at_once(many: Path, clip_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["batch", many, "-c", CLASSES, "-m", clip_folder, *FLAGS, "-o", out]
    first = start(*arguments)
    wait_for_lines(out, 1, first)
    first.send_signal(signal.SIGSTOP)  # so that it is still there when the other one comes
    code, _, errors = ended(start(*arguments, "--resume"))
    first.send_signal(signal.SIGCONT)
    assert code == 2
    assert errors == (
        f"cliper: error: another run uses {out}; wait until it ends, or choose another folder with --out\n"
    )
    assert ended(first)[0] == 1
    assert len(records(out)) == 150
