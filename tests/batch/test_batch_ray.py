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
from types import SimpleNamespace
from typing import Any

import pytest
from batch_runs import CLASSES, below, by_input, content, ended, make_photos, records, said, start, wait_for_lines
from PIL import Image

from cliper.errors import InputError, OutputError, ResourceError
from cliper.runner.engines import ray as ray_engine
from cliper.runner.items import ImageItem
from cliper.runner.manifest import Record
from cliper.runner.run import EngineStats

Draw = Callable[..., Image.Image]

FLAGS = ("-f", "labels", "-f", "coco", "-f", "gallery")


def actors(process: int) -> list[int]:
    """The processes below one that hold the model and are at work."""
    found = []
    for child in below(process):
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
def test_interrupted_and_gone_on_with_by_the_other_engine(clip_folder: Path, tmp_path: Path, make_image: Draw) -> None:
    pytest.importorskip("ray")
    photos = make_photos(tmp_path / "photos", make_image, 120)
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


def test_items_do_not_depend_on_where_a_worker_runs(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photo.parent)
    item = pickle.loads(pickle.dumps(ray_engine._absolute(ImageItem(1, "photo.png", "photo.png"))))
    assert item.uri == str(photo)
    remote = ImageItem(1, "a.png", "s3://bucket/a.png")
    assert ray_engine._absolute(remote) == remote


class LocalRay:
    """As much of Ray as the engine uses to distribute images, in this process."""

    def __init__(self, exceptions: Any, process: Callable[[list[Any]], Any]) -> None:
        self.exceptions, self.process = exceptions, SimpleNamespace(remote=lambda items: lambda: process(items))

    def wait(self, references: list[Any], num_returns: int) -> Any:
        return references[:1], references[1:]

    def get(self, reference: Any) -> Any:
        return reference()


class RecordedRun:
    """Items up to a number, then an error, and the records that were added."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.added: list[int] = []
        self._count, self._error = count, error

    def pending(self) -> Iterator[ImageItem]:
        yield from (ImageItem(number, f"{number}.png", f"/{number}.png") for number in range(1, self._count + 1))
        if self._error is not None:
            raise self._error

    def add(self, number: int, record: Record) -> None:
        self.added.append(number)


def done(items: list[ImageItem]) -> Any:
    return [(item.number, Record(item.name)) for item in items], EngineStats(1.0)


def test_images_before_damage_are_processed() -> None:
    exceptions = pytest.importorskip("ray.exceptions")
    ray, run = LocalRay(exceptions, done), RecordedRun(37, InputError("the tar is damaged"))
    with pytest.raises(InputError, match="the tar is damaged"):
        ray_engine._distribute(ray, [ray, ray], run)  # type: ignore[arg-type]
    assert sorted(run.added) == list(range(1, 38))


def test_an_error_of_a_worker_ends_the_run() -> None:
    exceptions = pytest.importorskip("ray.exceptions")
    run = RecordedRun(3)
    ray = LocalRay(exceptions, lambda items: (done(items[:1])[0], OutputError("cannot write 'a': the disk is full")))
    with pytest.raises(OutputError, match=r"^cannot write 'a': the disk is full$"):
        ray_engine._distribute(ray, [ray], run)  # type: ignore[arg-type]
    assert run.added == [1]  # what was finished before


def test_ray_that_cannot_go_on_is_one_line() -> None:
    exceptions = pytest.importorskip("ray.exceptions")

    def die(items: list[Any]) -> Any:
        raise exceptions.RayActorError(error_msg="the actor died\nunexpectedly")

    ray = LocalRay(exceptions, die)
    with pytest.raises(ResourceError, match=r"Ray could not go on.*the actor died unexpectedly"):
        ray_engine._distribute(ray, [ray], RecordedRun(3))  # type: ignore[arg-type]


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
