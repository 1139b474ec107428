"""The published order from an image file to labels, stated apart from the package's own code for it.

Cityscapes: the whole image is resized, the resized tensor is cut into halves at half its width, and labels are made at
the size of half the original image. Source: ``docs/method.md``, section 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from cliper.datasets import Benchmark, Sample
from cliper.ops import assign_labels

__all__ = ["published_labels", "published_pixels"]


def published_pixels(path: Any, half: str, *, size: int, patch: int, mean: Any, std: Any) -> torch.Tensor:
    """[3, H', W'] float32 of an image file; ``half`` is "left", "right" or empty for the whole."""
    image = Image.open(path).convert("RGB")
    ratio = size / min(image.size)
    width, height = (int(side * ratio / patch + 0.5) * patch for side in image.size)
    values = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    pixels = torch.from_numpy(values.transpose(2, 0, 1).copy()).float() / 255
    pixels = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    return {"left": pixels[:, :, : width // 2], "right": pixels[:, :, width // 2 :], "": pixels}[half]


def published_labels(segmenter: Any, benchmark: Benchmark, sample: Sample) -> np.ndarray:
    """The label map of a sample without a refiner."""
    encoder, settings = segmenter.encoder, segmenter.settings
    half = sample.name.partition("#")[2]
    values = {"size": settings.size, "patch": encoder.patch_size, "mean": encoder.pixel_mean, "std": encoder.pixel_std}
    pixels = published_pixels(sample.image, half, **values)
    texts = [segmenter.encode_text(list(part)) for part in (benchmark.texts.classes, benchmark.texts.background)]
    maps = segmenter.class_maps(pixels, *texts)
    width, height = Image.open(sample.image).size
    columns = {"left": width // 2, "right": width - width // 2, "": width}[half]
    labels = assign_labels(
        maps,
        maps,
        (height, columns),
        background_threshold=settings.background_threshold,
        score_threshold=settings.score_threshold,
        normalize=settings.normalize,
    )
    return labels.numpy()
