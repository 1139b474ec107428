"""PASCAL VOC 2012 (20 classes) and PASCAL-Context (59 classes), each with and without a background class."""

from __future__ import annotations

from pathlib import Path

from cliper.datasets.benchmark import Benchmark, Sample, published_benchmark, read_split

__all__ = ["context59", "context60", "voc20", "voc21"]

_VOC_NAMES = {
    "bird avian": "bird",
    "chair seat": "chair",
    "person with clothes, people, human": "person",
    "tvmonitor screen": "tvmonitor",
}
_CONTEXT_NAMES = {
    "bird avian": "bird",
    "chair seat": "chair",
    "person with cloth people human": "person",
    "tvmonitor screen": "tvmonitor",
}
_CONTEXT_SIZES = (5104, 5105)  # VOC 2010's list has one image more than the published JSON


def voc21() -> Benchmark:
    """PASCAL VOC. Masks: 0 background, 1 to 20 classes, 255 object borders."""
    return _voc("voc21", "PASCAL VOC 2012 val, with background", (255,))


def voc20() -> Benchmark:
    """The masks of :func:`voc21`; the background is not counted."""
    return _voc("voc20", "PASCAL VOC 2012 val, without background", (0, 255))


def context60() -> Benchmark:
    """PASCAL-Context. Masks: 0 background, 1 to 59 classes."""
    return _context("context60", "PASCAL-Context val, with background", (255,))


def context59() -> Benchmark:
    """The masks of :func:`context60`; the background is not counted."""
    return _context("context59", "PASCAL-Context val, without background", (0, 255))


def _voc(name: str, title: str, ignore: tuple[int, ...]) -> Benchmark:
    return published_benchmark(name, title, "voc", _voc_samples, (1449,), ignore=ignore, names=_VOC_NAMES)


def _context(name: str, title: str, ignore: tuple[int, ...]) -> Benchmark:
    return published_benchmark(
        name, title, "context", _context_samples, _CONTEXT_SIZES, ignore=ignore, names=_CONTEXT_NAMES
    )


def _voc_samples(root: Path) -> list[Sample]:
    folder = root / "VOCdevkit" / "VOC2012"
    names = read_split("voc", [folder / "ImageSets" / "Segmentation" / "val.txt"])
    # On val the augmented masks equal VOC's own.
    augmented = folder / "SegmentationClassAug"
    return _samples(folder, names, augmented if augmented.is_dir() else folder / "SegmentationClass")


def _context_samples(root: Path) -> list[Sample]:
    folder = root / "VOCdevkit" / "VOC2010"
    lists = folder / "ImageSets"
    names = read_split("context", [lists / "SegmentationContext" / "val.txt", lists / "Main" / "val.txt"])
    return _samples(folder, names, folder / "SegmentationClassContext")


def _samples(folder: Path, names: list[str], masks: Path) -> list[Sample]:
    return [Sample(name, folder / "JPEGImages" / f"{name}.jpg", masks / f"{name}.png") for name in names]
