"""ADE20K of the scene parsing challenge 2016: 150 classes."""

from __future__ import annotations

from pathlib import Path

from cliper.datasets.benchmark import Benchmark, Sample, list_files, published_benchmark

__all__ = ["ade150"]

# The published spelling, and the spelling of CLIPer's authors.
_FOLDERS = ("ADEChallengeData2016", "ADEchallengeData2016")


def ade150() -> Benchmark:
    """ADE20K. Masks: 0 unlabelled, 1 to 150 classes."""
    names = {"person with cloth people human": "person"}
    title = "ADE20K validation, 150 classes"
    return published_benchmark("ade150", title, "ade", _samples, (2000,), ignore=(0, 255), names=names)


def _samples(root: Path) -> list[Sample]:
    folder = next((root / name for name in _FOLDERS if (root / name).is_dir()), root / _FOLDERS[0])
    masks = folder / "annotations" / "validation"
    images = list_files("ade150", folder / "images" / "validation", "*.jpg")
    return [Sample(path.stem, path, masks / f"{path.stem}.png") for path in images]
