"""For the tests of formats: results with given labels, runs of a few images, and simple readers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from cliper.formats import Format, FormatOptions, ImageInfo, ImageOutput
from cliper.result import Segmentation
from cliper.settings import Settings

CLASSES = ("dog", "wooden bench", "Bär & <Co>")


def result_of(labels: np.ndarray, classes: tuple[str, ...] = CLASSES) -> Segmentation:
    """A result with these labels; its other arrays have the right shapes and arbitrary values."""
    random = np.random.default_rng(labels.size)
    maps = random.random((len(classes), 4, 4), dtype=np.float32)
    return Segmentation(
        image=Image.fromarray(random.integers(0, 256, (*labels.shape, 3), dtype=np.uint8)),
        classes=classes,
        labels=labels.astype(np.int32),
        confidence=np.linspace(0.5, 0.9, len(classes), dtype=np.float32),
        maps=maps,
        refined=maps,
        settings=Settings(),
        model="some",
    )


def labels_of(seed: int, size: tuple[int, int] = (40, 60)) -> np.ndarray:
    """Blobs of labels 0 to 3, with holes and single pixels."""
    random = np.random.default_rng(seed)
    labels = np.kron(random.integers(0, 4, (4, 6)), np.ones((size[0] // 4, size[1] // 6), int))
    labels[random.random(labels.shape) < 0.02] = 0
    labels[random.random(labels.shape) < 0.01] = 3
    return labels


@dataclass
class Outputs:
    """Outputs as a run passes them to ``merge``: an iterable that is no list, and counts its iterations."""

    items: list[ImageOutput]
    iterations: int = field(default=0)

    def __iter__(self) -> Iterator[ImageOutput]:
        self.iterations += 1
        return (output for output in self.items)


@dataclass(frozen=True)
class Run:
    """The files of a run in one format."""

    folder: Path
    results: dict[str, Segmentation]
    outputs: Outputs
    paths: list[Path]


NAMES = ("a.jpg", "deep/er/b.png", "deep/c d.webp")


def make_run(folder: Path, format: Format, options: FormatOptions | None = None) -> Run:
    """Write three images in a format, and merge them."""
    options = options or FormatOptions()
    results, items = {}, []
    for number, name in enumerate(NAMES, start=7):
        results[name] = result = result_of(labels_of(number))
        info = ImageInfo(name, 60, 40, number)
        path = folder / format.file_name(info.stem)
        format.write(result, path, info, options)
        items.append(ImageOutput(info, path))
    outputs = Outputs(items)
    paths = [] if format.merge is None else format.merge(outputs, folder, CLASSES, options)
    return Run(folder, results, outputs, paths)


def filled(polygon: np.ndarray, size: tuple[int, int], *, winding: bool = False) -> np.ndarray:
    """[H, W] bool: pixels whose centre is inside, by the even-odd rule or the winding rule."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    total = np.zeros(size, int)
    for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y1 == y2:
            continue
        across = (min(y1, y2) < y) & (y < max(y1, y2)) & (x > x1 + (y - y1) * (x2 - x1) / (y2 - y1))
        total += across * (1 if winding is False or y2 > y1 else -1)
    return total != 0 if winding else total % 2 == 1


def polygon_area(polygon: np.ndarray) -> float:
    """Signed area, positive for polygons that are clockwise on the screen."""
    x, y = polygon[:, 0], polygon[:, 1]
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def decode_brush(stream: list[int]) -> np.ndarray:
    """The values of a brush mask; written from the description of the format, bit by bit."""
    bits = "".join(f"{byte:08b}" for byte in stream)
    position = 0

    def read(width: int) -> int:
        nonlocal position
        position += width
        return int(bits[position - width : position], 2)

    count = read(32)
    word = read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < count:
        run = read(1)
        length = read(sizes[read(2)]) + 1
        values += [read(word)] * length if run else [read(word) for _ in range(length)]
    assert len(values) == count
    assert len(bits) - position < 8
    assert set(bits[position:]) <= {"0"}
    return np.array(values, np.uint8)
