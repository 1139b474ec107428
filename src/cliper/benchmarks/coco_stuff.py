"""COCO-Stuff on val2017: 80 things and 91 stuffs."""

from __future__ import annotations

from pathlib import Path

from cliper.benchmarks.base import Benchmark, Sample, list_files, plain_names
from cliper.benchmarks.texts import benchmark_texts

__all__ = ["coco_stuff"]


def coco_stuff() -> Benchmark:
    """Masks hold 0 to 170 in the order of COCO-Stuff's own ids, and 255 for what is not labelled."""
    texts = benchmark_texts("coco-stuff")
    return Benchmark(
        name="coco-stuff171",
        title="COCO-Stuff val2017, 171 classes",
        texts=texts,
        class_names=plain_names(texts, {}),
        ignore=(0, 255),
        size=5000,
        samples=_samples,
        offset=1,
    )


def _samples(root: Path) -> list[Sample]:
    folder = root / "coco2017"
    masks = folder / "stuff_anno164" / "val2017"
    pictures = list_files("coco-stuff171", folder / "val2017", "*.jpg")
    return [Sample(path.stem, path, masks / f"{path.stem}.png") for path in pictures]
