"""What a benchmark is: where its pictures and masks lie, and how labels are read from a mask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliper.benchmarks.texts import BenchmarkTexts
from cliper.errors import ImageError, InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

__all__ = ["Benchmark", "Sample", "list_files", "missing_data", "plain_names", "read_split"]


@dataclass(frozen=True)
class Sample:
    """One picture, or a part of one, with its ground truth.

    Args:
        name: unique in the benchmark and always the same, e.g. ``"2007_000033"``,
            ``"frankfurt_000000_000294#left"``.
        image: file of the picture.
        mask: file of the labels.
        column: None for the whole image, or (i, n) for the i-th of n columns of equal width, counted from 0 at the
            left. Cityscapes has (0, 2) and (1, 2).
    """

    name: str
    image: Path
    mask: Path
    column: tuple[int, int] | None = None

    def cut(self, image: Image.Image, labels: npt.NDArray[Any]) -> tuple[Image.Image, npt.NDArray[Any]]:
        """This sample's column of the whole image and of the whole mask [H, W]."""
        if self.column is None:
            return image, labels
        import numpy as np

        from cliper.images import column_bounds

        left, right = column_bounds(image.width, self.column)
        return image.crop((left, 0, right, image.height)), np.ascontiguousarray(labels[:, left:right])


@dataclass(frozen=True)
class Benchmark:
    """One benchmark. Class i is label ``i + 1``; label 0 is background, or what is not a class.

    Args:
        name: ``"voc21"``.
        title: ``"PASCAL VOC 2012 val, with background"``.
        texts: what is prompted with, in label order.
        class_names: C plain names for tables, in label order; the background is not among them.
        ignore: labels, as :meth:`read` gives them, whose pixels are not counted. With 0 among them the
            benchmark has no background class.
        size: how many samples the published protocol has.
        samples: from the root folder to the samples, in the order of the data set's own list where it has one.
            It raises InputError where the data set is not there.
        also_sizes: other counts that the published protocol goes by.
        offset: what is added to a mask's values on reading.
        mask_ignore: values of a mask, before the offset, that become :attr:`void`.
        upright: whether a picture is turned as its EXIF orientation says. The published data sets' masks belong
            to the pixels as they are stored.
    """

    name: str
    title: str
    texts: BenchmarkTexts
    class_names: tuple[str, ...]
    ignore: tuple[int, ...]
    size: int
    samples: Callable[[Path], list[Sample]]
    also_sizes: tuple[int, ...] = ()
    offset: int = 0
    mask_ignore: tuple[int, ...] = (255,)
    upright: bool = False

    @property
    def num_labels(self) -> int:
        """C + 1: the classes, and label 0."""
        return len(self.class_names) + 1

    @property
    def void(self) -> int:
        """The label of ignored pixels: 255, or 65535 where 255 is a class."""
        return 255 if self.num_labels <= 255 else 65535

    def read(self, sample: Sample) -> tuple[Image.Image, npt.NDArray[Any]]:
        """A sample's image and labels: of its column, if it is one; otherwise as :meth:`read_whole`."""
        return sample.cut(*self.read_whole(sample))

    def read_whole(self, sample: Sample) -> tuple[Image.Image, npt.NDArray[Any]]:
        """The whole image that a sample is of, and its labels.

        Returns:
            The picture in mode RGB, and labels [H, W] of the same size: 0 background, ``i + 1`` class i,
            :attr:`void` ignored; uint8, or int32 where there are more labels than that holds.

        Raises:
            ImageError: one of the two cannot be read, their sizes differ, or a label is out of range.
            ResourceError: memory ran out.
        """
        import numpy as np

        from cliper.decoding import shown_path
        from cliper.formats import read_label_png

        picture = self._picture(sample.image)
        values = read_label_png(sample.mask)
        height, width = values.shape
        if picture.size != (width, height):
            raise ImageError(
                f"expected a mask of its picture's size {picture.width}x{picture.height}, got {width}x{height}: "
                f"{shown_path(sample.mask)}; fetch or make it again"
            )
        ignored = np.isin(values, self.mask_ignore)
        labels = values + self.offset
        labels[ignored] = self.void
        self._check_range(labels, values, ignored, sample.mask)
        return picture, np.ascontiguousarray(labels, dtype=np.uint8 if self.void == 255 else np.int32)

    def _picture(self, path: Path) -> Image.Image:
        from cliper.decoding import decoding_memory_errors, open_picture, shown_path
        from cliper.images import load_image

        if self.upright:
            return load_image(path)
        stored = open_picture(path)
        try:
            with decoding_memory_errors(shown_path(path)):
                picture = stored.convert("RGB")
        except (ValueError, OSError):
            raise ImageError(
                f"expected a picture in grey or colour, got mode {stored.mode}: {shown_path(path)}; fetch it again"
            ) from None
        picture.info = {}  # else whoever reads it next would turn it
        return picture

    def _check_range(
        self, labels: npt.NDArray[Any], values: npt.NDArray[Any], ignored: npt.NDArray[np.bool_], path: Path
    ) -> None:
        from cliper.decoding import shown_path

        wrong = ~ignored & ((labels < 0) | (labels >= self.num_labels))
        if wrong.any():
            low, high = max(-self.offset, 0), self.num_labels - 1 - self.offset
            outside = ", ".join(str(value) for value in self.mask_ignore if not low <= value <= high)
            raise ImageError(
                f"expected labels {low} to {high}{' or ' + outside if outside else ''}, got {values[wrong][0]}: "
                f"{shown_path(path)}; this mask is not of {self.name}, or of another numbering"
            )


def plain_names(texts: BenchmarkTexts, names: Mapping[str, str]) -> tuple[str, ...]:
    """What classes are called: their prompt, or what ``names`` has for it."""
    return tuple(names.get(item.name, item.name) for item in texts.classes)


def missing_data(benchmark: str, path: Path) -> InputError:
    """The error of a data set that is not there."""
    from cliper.decoding import shown_path

    return InputError(f"{benchmark}: expected its data at {shown_path(path)}, got nothing there; check the root folder")


def read_split(benchmark: str, paths: Iterable[Path]) -> list[str]:
    """Names from a data set's own list, one a line, of the first of ``paths`` that is there.

    Raises:
        InputError: none is there, it cannot be read, it is empty, or names a picture twice.
    """
    from cliper.decoding import one_line, shown_path

    candidates = list(paths)
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        raise missing_data(benchmark, candidates[0])
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{benchmark}: could not read the list {shown_path(path)} ({one_line(error)}); fetch it again"
        ) from None
    names = [line.split()[0] for line in lines if line.strip()]
    if not names or len(set(names)) < len(names):
        what = "the same name twice" if names else "none"
        raise InputError(f"{benchmark}: expected names, each once, in {shown_path(path)}, got {what}; fetch it again")
    return names


def list_files(benchmark: str, folder: Path, pattern: str) -> list[Path]:
    """Files of a folder in the order of their names, hidden ones left out.

    Raises:
        InputError: there is none.
    """
    found = sorted(path for path in folder.glob(pattern) if not path.name.startswith(".") and path.is_file())
    if not found:
        raise missing_data(benchmark, folder / pattern)
    return found
