"""What is in the miniature data sets: names, images, and the labels that a benchmark should give."""

from __future__ import annotations

import numpy as np
from PIL import Image

VOC = ("2007_000033", "2008_000123", "2011_003256")
CONTEXT = ("2008_000002", "2008_000009", "2010_000661")
COCO = ("000000000139", "000000000285", "000000581781")
ADE = ("ADE_val_00000001", "ADE_val_00000002", "ADE_val_00002000")
CITYSCAPES = ("frankfurt_000000_000294", "frankfurt_000001_083852", "munster_000173_000019")

# Names of the images, and the labels that occur in their masks after reading.
CONTENT: dict[str, tuple[tuple[str, ...], list[int]]] = {
    "voc21": (VOC, [*range(21), 255]),
    "voc20": (VOC, [*range(21), 255]),
    "context60": (CONTEXT, list(range(60))),
    "context59": (CONTEXT, list(range(60))),
    "coco-object": (COCO, list(range(81))),
    "coco-stuff171": (COCO, [*range(1, 172), 255]),
    "ade150": (ADE, list(range(151))),
    "cityscapes": (CITYSCAPES, [*range(1, 20), 255]),
}
NAMES = tuple(CONTENT)

BLOCK = 6  # pixels; each label is a square of this side


def labels_of(benchmark: str, number: int) -> np.ndarray:
    """Of a whole image, [H, W] uint8: every label of the benchmark in turn, in squares; no two images agree."""
    labels = CONTENT[benchmark][1]
    columns = 2 * (3 + int(len(labels) ** 0.5) // 2 + number)
    rows = -(-len(labels) // columns)
    squares = np.resize(np.roll(labels, -number), rows * columns).reshape(rows, columns).astype(np.uint8)
    return np.kron(squares, np.ones((BLOCK, BLOCK), np.uint8))


def make_image(benchmark: str, number: int) -> Image.Image:
    """An image of the labels' size, its colours following them."""
    labels = labels_of(benchmark, number)
    colours = np.random.default_rng(7).integers(0, 256, (256, 3)).astype(np.uint8)
    return Image.fromarray(colours[labels])


def expected(benchmark: str) -> dict[str, np.ndarray]:
    """Name of a sample -> its labels [H, W], in the order of the benchmark."""
    found = {}
    for number, name in enumerate(CONTENT[benchmark][0]):
        labels = labels_of(benchmark, number)
        if benchmark == "cityscapes":
            middle = labels.shape[1] // 2
            found[f"{name}#left"], found[f"{name}#right"] = labels[:, :middle], labels[:, middle:]
        else:
            found[name] = labels
    return found
