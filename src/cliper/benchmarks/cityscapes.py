"""Cityscapes: 19 classes; each image is two samples, its left and its right half."""

from __future__ import annotations

from pathlib import Path

from cliper.benchmarks.base import Benchmark, Sample, list_files, plain_names
from cliper.benchmarks.texts import benchmark_texts

__all__ = ["cityscapes"]

_HALVES = {"left": (0, 2), "right": (1, 2)}


def cityscapes() -> Benchmark:
    """Masks hold the train ids 0 to 18, and 255 for all else."""
    texts = benchmark_texts("cityscapes")
    return Benchmark(
        name="cityscapes",
        title="Cityscapes val, 19 classes, in halves",
        texts=texts,
        class_names=plain_names(texts, {}),
        ignore=(0, 255),
        size=1000,
        samples=_samples,
        offset=1,
    )


def _samples(root: Path) -> list[Sample]:
    folder = root / "CityScapes"
    samples: list[Sample] = []
    for picture in list_files("cityscapes", folder / "leftImg8bit" / "val", "*/*_leftImg8bit.png"):
        stem = picture.name.removesuffix("_leftImg8bit.png")
        mask = folder / "gtFine" / "val" / picture.parent.name / f"{stem}_gtFine_labelTrainIds.png"
        samples.extend(Sample(f"{stem}#{half}", picture, mask, column) for half, column in _HALVES.items())
    return samples
