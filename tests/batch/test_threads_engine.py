"""The engine of threads: groups of images, as on a GPU, and errors in each of its stages."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cliper
from cliper.batch.task import SegmentTask
from cliper.decode_pool import DecodePool
from cliper.errors import CheckpointError, OutputError, ResourceError
from cliper.formats import read_label_png
from cliper.model_config import ModelConfig
from cliper.prompts import parse_classes
from cliper.runner.engines.threads import process_items
from cliper.runner.manifest import Manifest
from cliper.runner.run import EngineStats, Run, RunOptions
from cliper.runner.run_dir import open_run_dir
from cliper.runner.sources import find_source
from runs import Draw, make_photos


@pytest.fixture
def run_of(clip_folder: Path, tmp_path: Path) -> Iterator[Callable[[Path], Run]]:
    """A run of a folder, label maps only."""
    classes = tuple(parse_classes("dog; grass"))
    models = ModelConfig(str(clip_folder), cliper.Settings())
    task = SegmentTask(classes, "auto", ("labels",), models)
    with open_run_dir(str(tmp_path / "out")) as run_dir:
        run_dir.folder.mkdir()
        with Manifest(run_dir.manifest) as manifest:
            yield lambda folder: Run(
                task, find_source(str(folder)), run_dir, manifest, lambda record, new: None, RunOptions()
            )


def process(run: Run, segmenter: cliper.Segmenter, threads: int) -> EngineStats:
    with DecodePool(1) as decoder:
        return process_items(run.task, segmenter, decoder, run.pending(), run.run_dir.storage, run.add, threads=threads)


@pytest.fixture
def by_threes(own_tiny: cliper.Segmenter, monkeypatch: pytest.MonkeyPatch) -> cliper.Segmenter:
    monkeypatch.setattr(own_tiny, "batch_size", 3)
    return own_tiny


def test_groups_of_one_size(run_of: Any, by_threes: Any, tmp_path: Path, make_image: Draw) -> None:
    folder = make_photos(tmp_path / "photos", make_image, 24)
    Image.new("RGB", (3000, 2)).save(folder / "strip.png")  # read, but refused by the segmenter
    (folder / "bad.png").write_text("no picture")
    sizes = []
    segment = by_threes._encode_batch

    def watched(pictures: Any, *more: Any) -> Any:
        sizes.append([picture.size for picture in pictures])
        return segment(pictures, *more)

    by_threes._encode_batch = watched
    run = run_of(folder)
    stats = process(run, by_threes, 2)
    assert (run.counts.done, run.counts.failed) == (24, 2)
    assert stats.model_seconds > 0
    assert all(len(set(group)) == 1 and len(group) <= 3 for group in sizes)
    assert sum(len(group) == 3 for group in sizes) >= 6
    for _, record in run.manifest.records():
        if record.is_done:
            expected = by_threes(folder / record.input, "dog; grass").labels
            found = read_label_png(tmp_path / "out" / record.outputs[0])
            # In a group sums are made in another order: a pixel between two classes may fall to the other.
            assert np.mean(found != expected) < 0.01


def test_a_group_that_fails_is_done_one_by_one(run_of: Any, by_threes: Any, tmp_path: Path, make_image: Draw) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(7):
        make_image(seed=number).save(tmp_path / "photos" / f"{number}.png")
    call = by_threes._encode_batch

    def too_many(pictures: Any, *more: Any) -> Any:
        if len(pictures) > 1:
            raise ResourceError("memory ran out")
        return call(pictures, *more)

    by_threes._encode_batch = too_many
    run = run_of(tmp_path / "photos")
    process(run, by_threes, 2)
    assert (run.counts.done, run.counts.failed) == (7, 0)


def test_what_is_no_pictures_fault_ends_the_run(
    run_of: Any, own_tiny: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter([True] * 4)
    segment = own_tiny._encode_batch

    def broken(*arguments: Any) -> Any:
        if next(calls, False):
            return segment(*arguments)
        raise CheckpointError("weights that give no numbers")

    own_tiny._encode_batch = broken
    run = run_of(photos)
    with pytest.raises(CheckpointError):
        process(run, own_tiny, 2)
    assert run.counts.done <= 4
    # No thread goes on writing.
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("cliper-write")]


def test_labels_are_assigned_outside_of_the_models_thread(
    run_of: Any, own_tiny: Any, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, set[str]] = {"prepare": set(), "labels": set(), "networks": set()}

    def watch(kind: str, owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            threads[kind].add(threading.current_thread().name)
            return function(*arguments, **options)

        monkeypatch.setattr(owner, name, watched)

    watch("prepare", own_tiny, "preprocess")
    watch("labels", cliper.Segmentation, "from_maps")
    watch("networks", own_tiny.encoder, "encode_images")
    process(run_of(photos), own_tiny, 2)
    assert threads["networks"] == {threading.current_thread().name}
    assert all(name.startswith("cliper-read") for name in threads["prepare"])
    assert all(name.startswith("cliper-write") for name in threads["labels"])
    assert threads["prepare"]
    assert threads["labels"]


def test_a_folder_that_is_removed_ends_the_run(run_of: Any, own_tiny: Any, photos: Path, tmp_path: Path) -> None:
    run = run_of(photos)
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(OutputError, match="removed during the run"):
        process(run, own_tiny, 1)
    assert not (tmp_path / "out").exists()


def test_text_is_encoded_once(run_of: Any, own_tiny: Any, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    encode = own_tiny.encode_text
    monkeypatch.setattr(own_tiny, "encode_text", lambda names: calls.append(names) or encode(names))
    process(run_of(photos), own_tiny, 2)
    assert len(calls) == 2  # classes and background
