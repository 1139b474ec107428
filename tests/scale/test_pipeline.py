"""The local pipeline with groups of pictures, as on a GPU, and what it does when something in it goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batch_runs import make_photos
from PIL import Image

import cliper
from cliper.errors import CheckpointError, OutputError, ResourceError
from cliper.formats import find_format, read_label_png
from cliper.prompts import parse_classes
from cliper.scale.claims import Claims
from cliper.scale.finish import finish
from cliper.scale.job import Job, Worker
from cliper.scale.manifest import Manifest, Record, read_manifest
from cliper.scale.pipeline import run_here
from cliper.scale.places import Place
from cliper.scale.run import Run
from cliper.scale.sources import find_source

Draw = Callable[..., Image.Image]


@pytest.fixture
def run_of(clip_folder: Path, tmp_path: Path) -> Iterator[Callable[[Path], Run]]:
    """A run of a folder, label maps only."""
    settings = cliper.Settings()
    classes = tuple(parse_classes("dog; grass"))
    claims = Claims([find_format("labels")])
    with Manifest(tmp_path / "out" / "manifest.jsonl", claims.learn) as manifest:

        def make(folder: Path) -> Run:
            job = Job(classes, "auto", ("labels",), str(clip_folder), None, settings)
            return Run(
                find_source(str(folder)), job, Place(str(tmp_path / "out")), manifest, claims, lambda record, new: None
            )

        yield make


@pytest.fixture
def by_threes(own_tiny: cliper.Segmenter, monkeypatch: pytest.MonkeyPatch) -> cliper.Segmenter:
    monkeypatch.setattr(own_tiny, "batch_size", 3)
    return own_tiny


def test_groups_of_one_size(run_of: Any, by_threes: Any, tmp_path: Path, make_picture: Draw) -> None:
    folder = make_photos(tmp_path / "photos", make_picture, 24)
    Image.new("RGB", (3000, 2)).save(folder / "strip.png")  # read, but refused by the segmenter
    (folder / "bad.png").write_text("no picture")
    sizes = []
    segment = by_threes._segment

    def watched(pictures: Any, *more: Any) -> Any:
        sizes.append([picture.size for picture in pictures])
        return segment(pictures, *more)

    by_threes._segment = watched
    run = run_of(folder)
    timing = run_here(run, by_threes, workers=2)
    assert (run.tally.done, run.tally.failed) == (24, 2)
    assert timing.model > 0
    assert all(len(set(group)) == 1 and len(group) <= 3 for group in sizes)
    assert sum(len(group) == 3 for group in sizes) >= 6
    paths = finish(run, tmp_path / "out")
    assert paths == [tmp_path / "out" / "manifest.jsonl"]
    for record in read_manifest(paths[0]):
        if record.is_done:
            expected = by_threes(folder / record.input, "dog; grass").labels
            found = read_label_png(tmp_path / "out" / record.outputs[0])
            # In a group sums are made in another order: a pixel between two classes may fall to the other.
            assert np.mean(found != expected) < 0.01


def test_a_group_that_fails_is_done_one_by_one(run_of: Any, by_threes: Any, tmp_path: Path, make_picture: Draw) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(7):
        make_picture(seed=number).save(tmp_path / "photos" / f"{number}.png")
    call = by_threes._segment

    def too_many(pictures: Any, *more: Any) -> Any:
        if len(pictures) > 1:
            raise ResourceError("memory ran out")
        return call(pictures, *more)

    by_threes._segment = too_many
    run = run_of(tmp_path / "photos")
    run_here(run, by_threes, workers=2)
    assert (run.tally.done, run.tally.failed) == (7, 0)


def test_what_is_no_pictures_fault_ends_the_run(
    run_of: Any, own_tiny: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter([True] * 4)
    segment = own_tiny._segment

    def broken(*arguments: Any) -> Any:
        if next(calls, False):
            return segment(*arguments)
        raise CheckpointError("weights that give no numbers")

    own_tiny._segment = broken
    run = run_of(photos)
    with pytest.raises(CheckpointError):
        run_here(run, own_tiny, workers=2)
    assert run.tally.done <= 4
    # Nobody goes on writing.
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("cliper-write")]


def test_what_cannot_be_written_ends_the_run(
    run_of: Any, own_tiny: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Worker.write

    def full(self: Worker, item: Any, *more: Any) -> Record:
        if item.number >= 5:
            raise OutputError("the disk is full")
        return write(self, item, *more)

    monkeypatch.setattr(Worker, "write", full)
    run = run_of(photos)
    with pytest.raises(OutputError):
        run_here(run, own_tiny, workers=1)
    assert run.tally.done == 4
