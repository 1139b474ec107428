"""Benchmarks: where images and masks are stored, and how labels are read from a mask."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliper.datasets.decoding import Decode, decode_file
from cliper.datasets.texts import BenchmarkTexts
from cliper.errors import ImageError, InputError, quote_path, reraise

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import Image

__all__ = ["Benchmark", "Sample", "match_files", "missing_data_error", "read_split"]


@dataclass(frozen=True)
class Sample:
    """One image, or one column of an image, with its ground truth.

    Args:
        name: unique and stable within the benchmark, e.g. ``"2007_000033"``, ``"frankfurt_000000_000294#left"``.
        image: image file.
        mask: label file.
        column: None for the whole image, or (i, n) for the i-th of n columns of equal width, counted from 0 at the
            left. Cityscapes has (0, 2) and (1, 2).
    """

    name: str
    image: Path
    mask: Path
    column: tuple[int, int] | None = None

    def crop(self, image: Image.Image, labels: npt.NDArray[Any]) -> tuple[Image.Image, npt.NDArray[Any]]:
        """This sample's column of the whole image and of the whole mask [H, W]."""
        if self.column is None:
            return image, labels
        import numpy as np

        from cliper.images import column_bounds

        left, right = column_bounds(image.width, self.column)
        return image.crop((left, 0, right, image.height)), np.ascontiguousarray(labels[:, left:right])


@dataclass(frozen=True)
class Benchmark:
    """One benchmark. Class i has label ``i + 1``; label 0 is background, or unlabelled.

    Args:
        name: ``"voc21"``.
        title: ``"PASCAL VOC 2012 val, with background"``.
        texts: prompts in label order.
        class_names: C plain names for tables, in label order, without the background.
        ignore: labels whose pixels are not counted. If 0 is among them, the benchmark has no background class.
        samples: from the root folder to the samples, in the order of the data set's own list if it has one. Raises
            InputError if the data set is missing.
        accepted_sizes: sample counts of the complete benchmark; the first is the published protocol's.
        offset: added to the values of a mask on reading.
        mask_ignore: values of a mask, before the offset, that become :attr:`ignore_label`.
        apply_exif: whether images are rotated by their EXIF orientation. The published masks belong to the stored
            pixels.
        family: of a published benchmark, as for :func:`.benchmark_texts`; None for custom data.
    """

    name: str
    title: str
    texts: BenchmarkTexts
    class_names: tuple[str, ...]
    ignore: tuple[int, ...]
    samples: Callable[[Path], list[Sample]]
    accepted_sizes: tuple[int, ...]
    offset: int = 0
    mask_ignore: tuple[int, ...] = (255,)
    apply_exif: bool = False
    family: str | None = None

    @property
    def num_labels(self) -> int:
        """C + 1: the classes and label 0."""
        return len(self.class_names) + 1

    @property
    def ignore_label(self) -> int:
        """The label of ignored pixels: 255, or 65535 if 255 is a class."""
        return 255 if self.num_labels <= 255 else 65535

    def read_whole(self, sample: Sample, decode: Decode = decode_file) -> tuple[Image.Image, npt.NDArray[Any]]:
        """The whole image that a sample belongs to, and its labels.

        Args:
            sample: one of the benchmark's.
            decode: reads a file, perhaps in another process.

        Returns:
            The image in mode RGB, and labels [H, W] of the same size: 0 background, ``i + 1`` class i,
            :attr:`ignore_label` ignored; uint8, or int32 if there are more labels than uint8 holds.

        Raises:
            ImageError: a file cannot be read, the sizes of image and mask differ, or a label is out of range.
            ResourceError: out of memory.
        """
        import numpy as np
        from PIL import Image

        image = Image.fromarray(decode(sample.image, "upright" if self.apply_exif else "stored"))
        values = decode(sample.mask, "labels")
        height, width = values.shape
        if image.size != (width, height):
            raise ImageError(
                f"expected a mask of the image's size {image.width}x{image.height}, got {width}x{height}: "
                f"{quote_path(sample.mask)}; download or make it again"
            )
        ignored = np.isin(values, self.mask_ignore)
        labels = values + self.offset
        wrong = ~ignored & ((labels < 0) | (labels >= self.num_labels))
        if wrong.any():
            low, high = max(-self.offset, 0), self.num_labels - 1 - self.offset
            others = "".join(f" or {value}" for value in self.mask_ignore if not low <= value <= high)
            raise ImageError(
                f"expected labels {low} to {high}{others}, got {values[wrong][0]}: {quote_path(sample.mask)}; "
                f"this mask belongs to another benchmark than {self.name}, or is numbered differently"
            )
        labels[ignored] = self.ignore_label
        return image, np.ascontiguousarray(labels, dtype=np.uint8 if self.ignore_label == 255 else np.int32)


def missing_data_error(benchmark: str, path: Path) -> InputError:
    """The error for a data set that is missing."""
    return InputError(f"{benchmark}: expected its data at {quote_path(path)}, got nothing there; check the root folder")


def read_split(benchmark: str, paths: Iterable[Path]) -> list[str]:
    """Sample names from the first of ``paths`` that exists, one per line.

    Raises:
        InputError: none exists, the file cannot be read, is empty, or names a sample twice.
    """
    candidates = list(paths)
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        raise missing_data_error(benchmark, candidates[0])
    message = f"{benchmark}: cannot read the list {quote_path(path)}"
    with reraise((OSError, UnicodeDecodeError), InputError, message, "download it again"):
        lines = path.read_text(encoding="utf-8").splitlines()
    names = [line.split()[0] for line in lines if line.strip()]
    if not names or len(set(names)) < len(names):
        problem = "a name twice" if names else "no names"
        raise InputError(
            f"{benchmark}: expected unique names in {quote_path(path)}, got {problem}; download the list again"
        )
    return names


def match_files(benchmark: str, folder: Path, pattern: str) -> list[Path]:
    """Files of a folder that match a pattern, sorted by path, without hidden files.

    Raises:
        InputError: no file matches.
    """
    paths = sorted(path for path in folder.glob(pattern) if not path.name.startswith(".") and path.is_file())
    if not paths:
        raise missing_data_error(benchmark, folder / pattern)
    return paths
