"""Ray gives what the local engine gives, also where an actor is killed in the middle."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from runs import CLASSES, Draw, by_input, content, descendants, ended, make_photos, said, start, wait_for_lines

FLAGS = ("-f", "labels", "-f", "coco", "-f", "gallery")


def actors(process: int) -> list[int]:
    """The processes below one that hold the model and are at work."""
    found = []
    for child in descendants(process):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if b"ray::_Worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


@pytest.mark.full
def test_killed_and_left_alone_it_gives_what_the_local_engine_gives(
    clip_folder: Path, tmp_path: Path, make_image: Draw
) -> None:
    pytest.importorskip("ray")
    photos = make_photos(tmp_path / "photos", make_image, 120)
    (photos / "p000.png").write_text("no image")
    arguments = ["batch", photos, "-c", CLASSES, "-m", clip_folder, *FLAGS, "-o"]
    assert ended(start(*arguments, tmp_path / "local"))[0] == 1
    out = tmp_path / "ray"
    process = start(*arguments, out, "--engine", "ray", "--workers", 2)
    wait_for_lines(out, 10, process)
    at_work = actors(process.pid)
    assert at_work
    os.kill(at_work[0], signal.SIGKILL)
    code, printed, errors = ended(process)
    assert code == 1, errors
    assert "120 images: 119 done, 1 failed" in printed
    assert said(errors) == [f"cliper: error: p000.png: {by_input(out)['p000.png']['error']}"]
    # No image lost, none with two lines, no temporary file, and every byte the same.
    assert content(out) == content(tmp_path / "local")


def test_sources_that_only_one_machine_can_read(command: Any, clip_folder: Path, photos: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz") as tar:
        tar.add(photos, ".")
    arguments = ["-c", "dog", "-m", clip_folder, "-o", tmp_path / "out", "--engine", "ray"]
    ended = command("batch", tmp_path / "t.tar.gz", *arguments)
    assert ended.code == 2
    assert "a compressed tar can only be read from its beginning; use --engine local" in ended.err
    assert not (tmp_path / "out").exists()


def test_without_ray(
    command: Any, clip_folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    ended = command("batch", photos, "-c", "dog", "-m", clip_folder, "-o", tmp_path / "out", "--engine", "ray")
    assert ended.code == 2
    assert "pip install 'cliper[scale]'" in ended.err
    assert not (tmp_path / "out").exists()


def test_nobody_at_the_address(
    command: Any, clip_folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")

    def refuse(place: tuple[str, int], **_: Any) -> None:
        assert place == ("head", 6379)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr("cliper.runner.engines.ray.socket.create_connection", refuse)
    arguments = ["-c", "dog", "-m", clip_folder, "-o", tmp_path / "out", "--engine", "ray"]
    ended = command("batch", photos, *arguments, "--address", "head:6379")
    assert (ended.code, ended.err) == (
        2,
        "cliper: error: expected a Ray cluster at 'head:6379', got none (Connection refused); check --address\n",
    )
    assert not (tmp_path / "out").exists()
