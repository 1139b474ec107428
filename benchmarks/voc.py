"""The VOC images that the accuracy benchmarks read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cliper.images import load_image, open_image

__all__ = ["voc_images", "voc_names"]


def voc_names(root: Path) -> list[str]:
    """Names in the list of VOC 2012 val in ``root``, the folder VOCdevkit."""
    return (root / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt").read_text().split()


def voc_images(root: Path, names: list[str]) -> Iterator[tuple[Image.Image, torch.Tensor]]:
    """Each image and its labels, [H, W] uint8: 0 background, 1 to 20 classes, 255 ignored."""
    for name in names:
        mask = open_image(root / "VOC2012" / "SegmentationClassAug" / f"{name}.png")
        yield load_image(root / "VOC2012" / "JPEGImages" / f"{name}.jpg"), torch.from_numpy(np.array(mask))
