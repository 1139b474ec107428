"""Cityscapes: 19 classes; each image gives two samples, its left and its right half."""

from __future__ import annotations

from pathlib import Path

from cliper.datasets.benchmark import Benchmark, Sample, list_files, published_benchmark

__all__ = ["cityscapes"]

_HALVES = {"left": (0, 2), "right": (1, 2)}


def cityscapes() -> Benchmark:
    """Cityscapes. Masks: train ids 0 to 18, 255 for everything else."""
    title = "Cityscapes val, 19 classes, in halves"
    return published_benchmark("cityscapes", title, "cityscapes", _samples, (1000,), ignore=(0, 255), offset=1)


def _samples(root: Path) -> list[Sample]:
    folder = root / "CityScapes"
    samples: list[Sample] = []
    for image in list_files("cityscapes", folder / "leftImg8bit" / "val", "*/*_leftImg8bit.png"):
        stem = image.name.removesuffix("_leftImg8bit.png")
        mask = folder / "gtFine" / "val" / image.parent.name / f"{stem}_gtFine_labelTrainIds.png"
        samples.extend(Sample(f"{stem}#{half}", image, mask, column) for half, column in _HALVES.items())
    return samples
