"""For the tests of formats: results with given labels, runs of a few pictures, and plain readers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from cliper.formats.registry import Format, FormatOptions, ImageInfo, ImageOutput
from cliper.result import Segmentation
from cliper.settings import Settings

CLASSES = ("dog", "wooden bench", "Bär & <Co>")


def result_of(labels: np.ndarray, classes: tuple[str, ...] = CLASSES) -> Segmentation:
    """A result with these labels; its other arrays fit but mean nothing."""
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
    """Outputs as a run gives them: gone through as often as wanted, never a list."""

    items: list[ImageOutput]
    times: int = field(default=0)

    def __iter__(self) -> Iterator[ImageOutput]:
        self.times += 1
        return (output for output in self.items)


@dataclass(frozen=True)
class Run:
    """A run's output of one format."""

    folder: Path
    results: dict[str, Segmentation]
    outputs: Outputs
    paths: list[Path]


NAMES = ("a.jpg", "deep/er/b.png", "deep/c d.webp")


def make_run(folder: Path, format: Format, options: FormatOptions | None = None) -> Run:
    """Write three pictures in a format, and what it makes of the whole run."""
    options = options or FormatOptions()
    results, outputs = {}, []
    for number, name in enumerate(NAMES, start=7):
        results[name] = result = result_of(labels_of(number))
        picture = ImageInfo(name, 60, 40, number)
        path = folder / (picture.stem + format.suffix)
        format.write(result, path, picture, options)
        outputs.append(ImageOutput(picture, path))
    lazy = Outputs(outputs)
    paths = [] if format.merge is None else format.merge(lazy, folder, CLASSES, options)
    return Run(folder, results, lazy, paths)


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


def decode_brush(stream: list[int]) -> np.ndarray:
    """Written from the format's description: bits are read one number after the other."""
    bits = "".join(f"{byte:08b}" for byte in stream)
    place = 0

    def read(width: int) -> int:
        nonlocal place
        place += width
        return int(bits[place - width : place], 2)

    count = read(32)
    word = read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < count:
        run = read(1)
        length = read(sizes[read(2)]) + 1
        values += [read(word)] * length if run else [read(word) for _ in range(length)]
    assert len(values) == count
    assert len(bits) - place < 8
    assert set(bits[place:]) <= {"0"}
    return np.array(values, np.uint8)
