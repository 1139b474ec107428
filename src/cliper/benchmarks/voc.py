"""PASCAL VOC 2012: 20 objects, with and without a background class."""

from __future__ import annotations

from pathlib import Path

from cliper.benchmarks.base import Benchmark, Sample, plain_names, read_split
from cliper.benchmarks.texts import benchmark_texts

__all__ = ["voc20", "voc21"]

_NAMES = {
    "bird avian": "bird",
    "chair seat": "chair",
    "person with clothes, people, human": "person",
    "tvmonitor screen": "tvmonitor",
}


def voc21() -> Benchmark:
    """Masks hold 0 background, 1 to 20 classes, 255 the rim of objects."""
    return _voc("voc21", "PASCAL VOC 2012 val, with background", (255,))


def voc20() -> Benchmark:
    """The same masks; the background is not counted."""
    return _voc("voc20", "PASCAL VOC 2012 val, without background", (0, 255))


def _voc(name: str, title: str, ignore: tuple[int, ...]) -> Benchmark:
    texts = benchmark_texts("voc")
    return Benchmark(
        name=name,
        title=title,
        texts=texts,
        class_names=plain_names(texts, _NAMES),
        ignore=ignore,
        size=1449,
        samples=_samples,
    )


def _samples(root: Path) -> list[Sample]:
    folder = root / "VOCdevkit" / "VOC2012"
    names = read_split("voc", [folder / "ImageSets" / "Segmentation" / "val.txt"])
    # On val the augmented masks are VOC's own.
    augmented = folder / "SegmentationClassAug"
    masks = augmented if augmented.is_dir() else folder / "SegmentationClass"
    return [Sample(name, folder / "JPEGImages" / f"{name}.jpg", masks / f"{name}.png") for name in names]
