"""Reading ahead: every sample once, in groups of one size, errors alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cliper.datasets import Sample
from cliper.errors import ImageError
from cliper.evaluation.loading import load_ahead


class Sizes:
    """A benchmark whose pictures are as wide as their names say; 0 cannot be read."""

    def __init__(self) -> None:
        self.read_count = 0

    def read_whole(self, sample: Sample) -> tuple[Image.Image, np.ndarray]:
        width = int(sample.name.partition("#")[0])
        self.read_count += 1
        if not width:
            raise ImageError(f"{sample.name}:\n broken")
        return Image.new("RGB", (width, 2)), np.full((2, width), int(sample.name.partition("#")[2]))


def samples(widths: list[int]) -> list[Sample]:
    return [Sample(f"{width}#{i}", Path("p"), Path("m")) for i, width in enumerate(widths)]


@settings(deadline=None)  # threads are started
@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 4), st.integers(1, 3))
def test_every_sample_comes_once(widths: list[int], batch: int, threads: int) -> None:
    wanted = samples(widths)
    groups = list(load_ahead(Sizes(), wanted, batch=batch, threads=threads))  # type: ignore[arg-type]
    seen = [item.sample for group in groups for item in group]
    assert sorted(seen, key=wanted.index) == wanted
    if batch == 1:
        assert seen == wanted
    for group in groups:
        assert 1 <= len(group) <= batch
        assert len({item.picture.size if item.picture else None for item in group}) == 1
        for item in group:
            width, _, number = item.sample.name.partition("#")
            if width == "0":
                assert len(group) == 1
                assert item.error == f"{item.sample.name}: broken"
                assert item.labels is None
            else:
                assert item.error is None
                assert item.labels is not None
                assert item.labels.shape == (2, int(width))
                assert (item.labels == int(number)).all()


def test_a_caller_that_is_slow_does_not_fill_the_memory() -> None:
    benchmark = Sizes()
    groups = load_ahead(benchmark, samples([1] * 1000), batch=2, threads=2)  # type: ignore[arg-type]
    next(groups)
    next(groups)
    groups.close()
    assert benchmark.read_count < 30


def test_sizes_that_find_no_mate_do_not_fill_the_memory_either() -> None:
    benchmark = Sizes()
    groups = load_ahead(benchmark, samples(list(range(1, 1000))), batch=2, threads=2)  # type: ignore[arg-type]
    assert [len(next(groups)), len(next(groups))] == [1, 1]
    groups.close()
    assert benchmark.read_count < 40


def test_an_error_that_nobody_expects_is_not_swallowed() -> None:
    class Broken:
        def read_whole(self, sample: Sample) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(load_ahead(Broken(), samples([1])))  # type: ignore[arg-type]
