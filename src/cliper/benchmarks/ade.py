"""ADE20K as in the scene parsing challenge of 2016: 150 classes."""

from __future__ import annotations

from pathlib import Path

from cliper.benchmarks.base import Benchmark, Sample, list_files, plain_names
from cliper.benchmarks.texts import benchmark_texts

__all__ = ["ade150"]

# As it is published, and as CLIPer's authors spell it.
_FOLDERS = ("ADEChallengeData2016", "ADEchallengeData2016")


def ade150() -> Benchmark:
    """Masks hold 0 for what is none of the classes, 1 to 150 classes."""
    texts = benchmark_texts("ade")
    return Benchmark(
        name="ade150",
        title="ADE20K validation, 150 classes",
        texts=texts,
        class_names=plain_names(texts, {"person with cloth people human": "person"}),
        ignore=(0, 255),
        size=2000,
        samples=_samples,
    )


def _samples(root: Path) -> list[Sample]:
    folder = next((root / name for name in _FOLDERS if (root / name).is_dir()), root / _FOLDERS[0])
    masks = folder / "annotations" / "validation"
    pictures = list_files("ade150", folder / "images" / "validation", "*.jpg")
    return [Sample(path.stem, path, masks / f"{path.stem}.png") for path in pictures]
