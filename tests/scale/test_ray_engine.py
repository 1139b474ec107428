"""Ray gives what the local engine gives, also where an actor is killed in the middle."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from batch_runs import CLASSES, below, by_input, content, ended, make_photos, records, said, start, wait_for_lines
from PIL import Image

from cliper.errors import InputError, OutputError, ResourceError
from cliper.scale import ray_engine
from cliper.scale.cluster import packed, results, unpacked
from cliper.scale.items import Item

Draw = Callable[..., Image.Image]

FLAGS = ("-f", "labels", "-f", "coco", "-f", "gallery")


def actors(process: int) -> list[int]:
    """The processes below one that hold the model and are at work."""
    found = []
    for child in below(process):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if b"ray::MapWorker" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


@pytest.mark.full
def test_killed_and_left_alone_it_gives_what_the_local_engine_gives(
    clip_folder: Path, tmp_path: Path, make_picture: Draw
) -> None:
    pytest.importorskip("ray")
    photos = make_photos(tmp_path / "photos", make_picture, 120)
    (photos / "p000.png").write_text("no picture")
    arguments = [photos, "-c", CLASSES, "-m", clip_folder, *FLAGS, "-o"]
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
    # No picture lost, none with two lines, no temporary file, and every byte the same.
    assert content(out) == content(tmp_path / "local")


@pytest.mark.full
def test_interrupted_and_gone_on_with_by_the_other_engine(
    clip_folder: Path, tmp_path: Path, make_picture: Draw
) -> None:
    pytest.importorskip("ray")
    photos = make_photos(tmp_path / "photos", make_picture, 120)
    arguments = [photos, "-c", CLASSES, "-m", clip_folder, "-f", "labels", "-o", tmp_path / "out"]
    process = start(*arguments, "--engine", "ray")
    wait_for_lines(tmp_path / "out", 5, process)
    process.send_signal(signal.SIGINT)
    code, _, errors = ended(process)
    assert code == 130
    assert "the same command with --resume continues" in errors
    done = len(records(tmp_path / "out"))
    assert 5 <= done < 120
    code, printed, errors = ended(start(*arguments, "--resume"))
    assert (code, said(errors)) == (0, [])
    assert f"120 images: 120 done, {done} of them earlier" in printed


def test_sources_that_only_one_machine_can_read(command: Any, clip_folder: Path, photos: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz") as tar:
        tar.add(photos, ".")
    arguments = ["-c", "dog", "-m", clip_folder, "-o", tmp_path / "out", "--engine", "ray"]
    ended = command("batch", tmp_path / "t.tar.gz", *arguments)
    assert ended.code == 2
    assert "a compressed tar can only be read from its begin; use --engine local" in ended.err
    assert not (tmp_path / "out").exists()


def test_without_ray(
    command: Any, clip_folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    ended = command("batch", photos, "-c", "dog", "-m", clip_folder, "-o", tmp_path / "out", "--engine", "ray")
    assert ended.code == 2
    assert "pip install 'cliper[scale]'" in ended.err
    assert not (tmp_path / "out").exists()


def test_items_do_not_depend_on_where_a_worker_runs(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photo.parent)
    item = pickle.loads(pickle.dumps(ray_engine._anywhere(Item(1, "photo.png", "photo.png"))))
    monkeypatch.chdir("/")
    assert item.read().size == (96, 64)
    far = Item(1, "a.png", "s3://bucket/a.png")
    assert ray_engine._anywhere(far) == far


def test_what_comes_before_damage_is_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "_WINDOW", 3)

    def left() -> Iterator[Item]:
        yield from (Item(number, f"{number}.png", f"/{number}.png") for number in range(1, 6))
        raise InputError("the tar is damaged")

    windows = ray_engine._windows(left())
    assert [item.number for item in next(windows)] == [1, 2, 3]
    assert [item.number for item in next(windows)] == [4, 5]
    with pytest.raises(InputError, match="the tar is damaged"):
        next(windows)
    whole = ray_engine._windows(Item(number, f"{number}.png") for number in range(6))
    assert [len(window) for window in whole] == [3, 3]


def test_an_error_of_a_worker_is_a_result_that_is_raised_where_it_is_read() -> None:
    pytest.importorskip("ray")

    def work() -> Iterator[int]:
        yield 1
        raise OutputError("cannot write 'a': the disk is full")

    read = unpacked(packed(work))
    assert next(read) == 1
    with pytest.raises(OutputError, match=r"^cannot write 'a': the disk is full$"):
        next(read)


def test_ray_that_cannot_go_on_is_one_line() -> None:
    exceptions = pytest.importorskip("ray.exceptions")

    class Broken:
        def iter_batches(self, **_: Any) -> Iterator[Any]:
            yield packed(lambda: [1])
            raise exceptions.RayActorError(error_msg="the actor died\nunexpectedly")

    read = results(Broken())
    assert next(read) == 1
    with pytest.raises(ResourceError, match=r"Ray could not go on.*the actor died unexpectedly"):
        next(read)


def test_nobody_at_the_address(
    command: Any, clip_folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")

    def refuse(place: tuple[str, int], **_: Any) -> None:
        assert place == ("head", 6379)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr("cliper.scale.cluster.socket.create_connection", refuse)
    arguments = ["-c", "dog", "-m", clip_folder, "-o", tmp_path / "out", "--engine", "ray"]
    ended = command("batch", photos, *arguments, "--address", "head:6379")
    assert (ended.code, ended.err) == (
        2,
        "cliper: error: expected a Ray cluster at 'head:6379', got none ([Errno 111] Connection refused); "
        "check --address\n",
    )
    assert not (tmp_path / "out").exists()
