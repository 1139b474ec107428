"""PASCAL-Context on the pictures of VOC 2010: 59 classes, with and without a background class."""

from __future__ import annotations

from pathlib import Path

from cliper.benchmarks.base import Benchmark, Sample, plain_names, read_split
from cliper.benchmarks.texts import benchmark_texts

__all__ = ["context59", "context60"]

_NAMES = {
    "bird avian": "bird",
    "chair seat": "chair",
    "person with cloth people human": "person",
    "tvmonitor screen": "tvmonitor",
}


def context60() -> Benchmark:
    """Masks hold 0 background, 1 to 59 classes."""
    return _context("context60", "PASCAL-Context val, with background", (255,))


def context59() -> Benchmark:
    """The same masks; the background is not counted."""
    return _context("context59", "PASCAL-Context val, without background", (0, 255))


def _context(name: str, title: str, ignore: tuple[int, ...]) -> Benchmark:
    texts = benchmark_texts("context")
    return Benchmark(
        name=name,
        title=title,
        texts=texts,
        class_names=plain_names(texts, _NAMES),
        ignore=ignore,
        size=5104,
        also_sizes=(5105,),  # the list of VOC 2010 has one picture more than the published json
        samples=_samples,
    )


def _samples(root: Path) -> list[Sample]:
    folder = root / "VOCdevkit" / "VOC2010"
    lists = folder / "ImageSets"
    names = read_split("context", [lists / "SegmentationContext" / "val.txt", lists / "Main" / "val.txt"])
    masks = folder / "SegmentationClassContext"
    return [Sample(name, folder / "JPEGImages" / f"{name}.jpg", masks / f"{name}.png") for name in names]
