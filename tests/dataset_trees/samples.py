"""Read a sample as an evaluation does."""

from __future__ import annotations

import numpy.typing as npt
from PIL import Image

from cliper.datasets import Benchmark, Sample

__all__ = ["read_sample"]


def read_sample(benchmark: Benchmark, sample: Sample) -> tuple[Image.Image, npt.NDArray]:
    """Image and labels of a sample, cropped to its column."""
    return sample.crop(*benchmark.read_whole(sample))
