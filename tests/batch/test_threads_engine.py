"""The engine of threads: groups of images, as on a GPU, and errors in each of its stages."""

from __future__ import annotations

import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cliper
from cliper.batch.smooth_video import SmoothVideoTask
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
def run_of(clip_folder: Path, tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """A run of a folder, label maps only."""
    classes = tuple(parse_classes("dog; grass"))
    models = ModelConfig(str(clip_folder), cliper.Settings())
    with open_run_dir(str(tmp_path / "out")) as run_dir:
        run_dir.folder.mkdir()
        with Manifest(run_dir.manifest) as manifest:

            def make(folder: Path, kind: type[SegmentTask] = SegmentTask) -> Run:
                task, source = kind(classes, "auto", ("labels",), models), find_source(str(folder))
                return Run(task, source, run_dir, manifest, lambda record, new: None, RunOptions())

            yield make


def process(run: Run, segmenter: cliper.Segmenter, threads: int) -> EngineStats:
    with DecodePool(1) as decoder:
        return process_items(run.task, segmenter, decoder, run.pending(), run.run_dir.storage, run.add, threads=threads)


@pytest.fixture
def by_threes(own_tiny: cliper.Segmenter, monkeypatch: pytest.MonkeyPatch) -> cliper.Segmenter:
    monkeypatch.setattr(own_tiny, "batch_size", 3)
    return own_tiny


def test_smoothed_frames_of_changing_size_stay_in_order(
    run_of: Any, by_threes: Any, tmp_path: Path, make_image: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [(64, 48), (64, 48), (48, 64), (64, 48)]
    (tmp_path / "frames").mkdir()
    for number, size in enumerate(sizes):
        make_image(*size, seed=number).save(tmp_path / "frames" / f"{number}.png")
    processed = []
    encode = by_threes.encode_images

    def watched(images: Any, *more: Any) -> Any:
        processed.extend(image.size for image in images)
        return encode(images, *more)

    monkeypatch.setattr(by_threes, "encode_images", watched)
    process(run := run_of(tmp_path / "frames", SmoothVideoTask), by_threes, 1)
    assert (run.counts.done, processed) == (4, sizes)


def test_groups_of_one_size(run_of: Any, by_threes: Any, tmp_path: Path, make_image: Draw) -> None:
    folder = make_photos(tmp_path / "photos", make_image, 24)
    Image.new("RGB", (3000, 2)).save(folder / "strip.png")  # read, but refused by the segmenter
    (folder / "bad.png").write_text("no image")
    sizes = []
    segment = by_threes._encode_batch

    def watched(images: Any, *more: Any) -> Any:
        sizes.append([image.size for image in images])
        return segment(images, *more)

    by_threes._encode_batch = watched
    stats = process(run := run_of(folder), by_threes, 2)
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


def test_group_that_fails_is_processed_one_by_one(run_of: Any, by_threes: Any, photos: Path) -> None:
    encode = by_threes._encode_batch

    def too_many(images: Any, *more: Any) -> Any:
        if len(images) > 1:
            raise ResourceError("memory ran out")
        return encode(images, *more)

    by_threes._encode_batch = too_many
    process(run := run_of(photos), by_threes, 2)
    assert (run.counts.done, run.counts.failed) == (12, 0)


def test_error_of_the_model_ends_the_run(run_of: Any, own_tiny: Any, photos: Path) -> None:
    encode, calls = own_tiny._encode_batch, iter(range(4))

    def broken(*arguments: Any) -> Any:
        if next(calls, None) is None:
            raise CheckpointError("weights that give no numbers")
        return encode(*arguments)

    own_tiny._encode_batch = broken
    with pytest.raises(CheckpointError):
        process(run := run_of(photos), own_tiny, 2)
    assert run.counts.done <= 4
    # No thread goes on writing.
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("cliper-write")]


def test_threads_of_each_step(run_of: Any, own_tiny: Any, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts are encoded once per run, and only the networks run in the model's thread."""
    threads: dict[str, list[str]] = defaultdict(list)

    def watch(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            threads[name].append(threading.current_thread().name.rstrip("-0123456789"))
            return function(*arguments, **options)

        monkeypatch.setattr(owner, name, watched)

    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    watch(own_tiny, "preprocess")
    watch(own_tiny, "encode_text")
    watch(own_tiny.encoder, "encode_images")
    watch(cliper.Segmentation, "from_maps")
    run = run_of(photos)
    own_tiny.segment_deferred([], run.task.classes, run.task.background)  # as the task's load() does
    process(run, own_tiny, 2)
    assert set(threads["preprocess"]) == {"cliper-read"}
    assert set(threads["encode_images"]) == {"cliper-model"}
    assert set(threads["from_maps"]) == {"cliper-write"}
    assert len(threads["encode_text"]) == 1  # not for each image


def test_folder_that_is_removed_ends_the_run(run_of: Any, own_tiny: Any, photos: Path, tmp_path: Path) -> None:
    run = run_of(photos)
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(OutputError, match="removed during the run"):
        process(run, own_tiny, 1)
    assert not (tmp_path / "out").exists()
