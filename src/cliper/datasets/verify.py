"""Verification of benchmark data: which files are missing and which cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliper.datasets.benchmark import Benchmark, Sample
from cliper.datasets.published import find_benchmark
from cliper.errors import ImageError, InputError, ResourceError, quote_path, short_reason

__all__ = ["DataReport", "verify_data"]

_MAGIC_BYTES = {".jpg": b"\xff\xd8\xff", ".png": b"\x89PNG\r\n\x1a\n"}

_Progress = Callable[[Sequence[Sample], str], Iterable[Sample]]


@dataclass(frozen=True)
class DataReport:
    """State of one benchmark's data.

    Args:
        benchmark: the benchmark.
        valid: number of samples whose image and mask passed all checks.
        missing: paths of missing files.
        unreadable: one line for each file that cannot be read.
        absent: the reason why no sample was found; empty if any was.
    """

    benchmark: Benchmark
    valid: int = 0
    missing: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    absent: str = ""

    @property
    def complete(self) -> bool:
        """Whether every sample of the published protocol is valid."""
        problems = self.absent or self.missing or self.unreadable
        return not problems and self.valid in self.benchmark.accepted_sizes


def verify_data(
    root: Path, names: Iterable[str], *, full: bool = False, progress: _Progress = lambda samples, _: samples
) -> Iterator[DataReport]:
    """Verify benchmarks one after the other.

    Args:
        root: root folder of all data sets.
        names: names of benchmarks.
        full: decode every image and mask and check every label. Otherwise only check that the files exist, are not
            empty and begin with the magic bytes of their format.
        progress: called with the samples and a title; returns the samples and may report the progress.

    Raises:
        InputError: a name is unknown.
    """
    # Benchmarks that differ only in the labels they count share their files, which are read once.
    results: dict[Any, tuple[int, tuple[str, ...], tuple[str, ...]]] = {}
    for benchmark in [find_benchmark(name) for name in names]:
        try:
            samples = benchmark.samples(root)
        except InputError as error:
            yield DataReport(benchmark, absent=str(error))
            continue
        key = (benchmark.samples, benchmark.offset, benchmark.mask_ignore)
        if key not in results:
            results[key] = _check_samples(benchmark, samples, full, progress)
        yield DataReport(benchmark, *results[key])


def _check_samples(
    benchmark: Benchmark, samples: list[Sample], full: bool, progress: _Progress
) -> tuple[int, tuple[str, ...], tuple[str, ...]]:
    """(number of valid samples, missing, unreadable). Samples that share their files are checked together."""
    groups: dict[tuple[Path, Path], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.image, sample.mask), []).append(sample)
    valid = 0
    missing: list[str] = []
    unreadable: list[str] = []
    for sample in progress([group[0] for group in groups.values()], benchmark.name):
        files = (sample.image, sample.mask)
        absent = [path for path in files if not path.is_file()]
        problems = [problem for path in files if path not in absent and (problem := _check_magic_bytes(path))]
        if full and not absent and not problems:
            try:
                benchmark.read_whole(sample)
            except (ImageError, ResourceError) as error:
                problems.append(str(error))
        missing += map(str, absent)
        unreadable += problems
        valid += 0 if absent or problems else len(groups[files])
    return valid, tuple(missing), tuple(unreadable)


def _check_magic_bytes(path: Path) -> str:
    """The problem with a file's first bytes; empty if there is none."""
    expected = _MAGIC_BYTES[path.suffix]
    try:
        with path.open("rb") as stream:
            first = stream.read(len(expected))
    except OSError as error:
        return f"cannot read {quote_path(path)} ({short_reason(error)}); check its permissions"
    if first == expected:
        return ""
    content = "another format" if first else "an empty file"
    return f"expected a {path.suffix[1:].upper()} file, got {content}: {quote_path(path)}; download it again"
