"""What is there of a benchmark, what is missing, and what cannot be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliper.benchmarks.base import Benchmark, Sample
from cliper.benchmarks.registry import find_benchmark
from cliper.errors import ImageError, InputError

__all__ = ["DataReport", "verify_data"]

_BEGINNINGS = {".jpg": b"\xff\xd8\xff", ".png": b"\x89PNG\r\n\x1a\n"}

Track = Callable[[Sequence[Sample], str], Iterable[Sample]]


@dataclass(frozen=True)
class DataReport:
    """What was found of one benchmark.

    Args:
        benchmark: which.
        found: samples with picture and mask, both fit to be read as far as was looked.
        expected: how many the published protocol has.
        missing: files that are not there, one line each.
        unreadable: files that cannot be read, one line each.
        absent: why there is nothing at all; empty where there is something.
    """

    benchmark: Benchmark
    found: int = 0
    missing: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    absent: str = ""

    @property
    def expected(self) -> tuple[int, ...]:
        """The counts that the published protocol goes by."""
        return (self.benchmark.size, *self.benchmark.also_sizes)

    @property
    def whole(self) -> bool:
        """Whether all that the published protocol has is there."""
        return not (self.absent or self.missing or self.unreadable) and self.found in self.expected


def verify_data(
    root: Path, names: Iterable[str], *, deep: bool = False, track: Track = lambda samples, _: samples
) -> Iterator[DataReport]:
    """Look at benchmarks one after the other.

    Args:
        root: the folder of all data sets.
        names: which benchmarks.
        deep: decode every picture and mask and look at every label. Otherwise only whether the files are there, have
            something in them, and begin as a picture does.
        track: from samples and a text to the samples, showing how far they are.

    Raises:
        InputError: there is no benchmark of a name.
    """
    # Benchmarks that differ in what they count, not in their files, are read once.
    known: dict[Any, tuple[int, tuple[str, ...], tuple[str, ...]]] = {}
    for benchmark in [find_benchmark(name) for name in names]:
        try:
            samples = benchmark.samples(root)
        except InputError as error:
            yield DataReport(benchmark, absent=str(error))
            continue
        key = (benchmark.samples, benchmark.offset, benchmark.mask_ignore)
        if key not in known:
            known[key] = _look(benchmark, samples, deep, track)
        yield DataReport(benchmark, *known[key])


def _look(
    benchmark: Benchmark, samples: list[Sample], deep: bool, track: Track
) -> tuple[int, tuple[str, ...], tuple[str, ...]]:
    """(samples that are fit, missing, unreadable); a pair of files that several samples share is read once."""
    pairs: dict[tuple[Path, Path], list[Sample]] = {}
    for sample in samples:
        pairs.setdefault((sample.image, sample.mask), []).append(sample)
    found, missing, unreadable = 0, [], []
    for sample in track([group[0] for group in pairs.values()], benchmark.name):
        files = (sample.image, sample.mask)
        gone = [path for path in files if not path.is_file()]
        missing += [str(path) for path in gone]
        problems = [problem for path in files if path not in gone and (problem := _beginning(path))]
        if deep and not gone and not problems:
            try:
                benchmark.read_whole(sample)
            except ImageError as error:
                problems.append(str(error))
        unreadable += problems
        found += 0 if gone or problems else len(pairs[files])
    return found, tuple(missing), tuple(unreadable)


def _beginning(path: Path) -> str:
    """What is wrong with a file's first bytes, or nothing."""
    from cliper.decoding import one_line, shown_path

    wanted = _BEGINNINGS[path.suffix]
    try:
        with path.open("rb") as stream:
            begins = stream.read(len(wanted))
            size = os.fstat(stream.fileno()).st_size
    except OSError as error:
        return f"could not read {shown_path(path)} ({one_line(error)}); check its permissions"
    if begins == wanted:
        return ""
    what = f"{size} bytes of something else" if size else "an empty file"
    return f"expected a {path.suffix[1:].upper()}, got {what}: {shown_path(path)}; fetch it again"
