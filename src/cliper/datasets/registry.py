"""Benchmarks by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from cliper.datasets.ade import ade150
from cliper.datasets.benchmark import Benchmark
from cliper.datasets.cityscapes import cityscapes
from cliper.datasets.coco import coco_object, coco_stuff
from cliper.datasets.pascal import context59, context60, voc20, voc21
from cliper.errors import InputError

__all__ = ["benchmark_names", "find_benchmark"]

_BENCHMARKS: dict[str, Callable[[], Benchmark]] = {
    "voc21": voc21,
    "voc20": voc20,
    "context60": context60,
    "context59": context59,
    "coco-object": coco_object,
    "coco-stuff171": coco_stuff,
    "ade150": ade150,
    "cityscapes": cityscapes,
}


def benchmark_names() -> list[str]:
    """Names of all benchmarks, in the order of the published table."""
    return list(_BENCHMARKS)


def find_benchmark(name: str) -> Benchmark:
    """A benchmark by its name.

    Raises:
        InputError: the name is unknown.

    Example:
        >>> find_benchmark("voc21").class_names[:2]
        ('aeroplane', 'bicycle')
    """
    key = name.strip().lower()
    if key not in _BENCHMARKS:
        near = difflib.get_close_matches(key, _BENCHMARKS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"expected a benchmark, one of {', '.join(_BENCHMARKS)}, got {name!r}{hint}")
    return _BENCHMARKS[key]()
