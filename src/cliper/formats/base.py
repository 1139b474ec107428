"""What all formats share: the result they read, their options, and the type of a format."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from cliper.errors import InputError, quote_path, reraise
from cliper.formats.regions import DEFAULT_MIN_AREA, min_pixels

__all__ = [
    "LABEL_MODES",
    "Format",
    "FormatOptions",
    "ImageInfo",
    "ImageOutput",
    "LabeledImage",
    "Merge",
    "Write",
    "bounded_confidence",
]

T = TypeVar("T")

LABEL_MODES = ("palette", "grey")


class LabeledImage(Protocol):
    """What formats read of a result; :class:`cliper.Segmentation` implements it."""

    @property
    def image(self) -> Image.Image:
        """The image, RGB, W x H pixels."""

    @property
    def labels(self) -> npt.NDArray[Any]:
        """[H, W] integers from 0 to C: 0 is background, i + 1 is ``classes[i]``."""

    @property
    def classes(self) -> tuple[str, ...]:
        """C names."""

    @property
    def confidence(self) -> npt.NDArray[np.float32]:
        """[C] float32."""

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """[C, H, W] float32; computed and large, so only formats that store it may read it."""

    @property
    def model(self) -> str:
        """Name of the checkpoint, or path of its folder."""


def bounded_confidence(confidence: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Confidence as people and files get it: at most 1. Refined maps may exceed 1 a little.

    Args:
        confidence: [C] float32, of a result.

    Example:
        >>> bounded_confidence(np.array([0.5, 1.25], np.float32)).tolist()
        [0.5, 1.0]
    """
    return np.minimum(confidence, np.float32(1))


@dataclass(frozen=True)
class FormatOptions:
    """Options of all formats.

    Args:
        tolerance: of polygons: largest distance of a simplified border from the exact one, in pixels; 0 is exact.
        quality: of JPEG and WebP overlays, 1 to 100.
        min_area: smallest region, in pixels or as a share of the image, in ``coco``, ``cvat``, ``label-studio``,
            ``labelme`` and ``yolo``; 0 keeps all. Label maps and masks always have all regions.
        label_mode: of label maps: ``"palette"``, or ``"grey"`` for readers that turn a palette into colours.
        image_folder: name of the folder that holds the images; Label Studio's addresses begin with it.
        ignore_background: whether ``yolo-semantic`` and ``hf-dataset`` store background as 255, which training ignores,
            and class i as i; else background is class 0, and class i is ``i + 1``.

    Raises:
        InputError: a value out of range.

    Example:
        >>> FormatOptions(tolerance=2).quality
        90
    """

    tolerance: float = 1.0
    quality: int = 90
    min_area: int | str = DEFAULT_MIN_AREA
    label_mode: str = "palette"
    image_folder: str = ""
    ignore_background: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance <= 1000:
            raise InputError(f"tolerance: expected pixels from 0 to 1000, got {self.tolerance!r}")
        if isinstance(self.quality, bool) or not isinstance(self.quality, int) or not 1 <= self.quality <= 100:
            raise InputError(f"quality: expected a whole number from 1 to 100, got {self.quality!r}")
        min_pixels(self.min_area, (1, 1))
        if self.label_mode not in LABEL_MODES:
            raise InputError(f"label_mode: expected one of {', '.join(LABEL_MODES)}, got {self.label_mode!r}")


@dataclass(frozen=True)
class ImageInfo:
    """The image of a run that a file describes.

    Args:
        name: path relative to the run's input, with suffix and ``/``: ``"garden/cat.jpg"``.
        width: in pixels, after EXIF orientation.
        height: in pixels.
        id: unique number of the image in the run, from 1.
        source: path of the image file, if the output is written to disks of the same machine; else None.
    """

    name: str
    width: int
    height: int
    id: int = 1
    source: Path | None = None

    @property
    def stem(self) -> str:
        """The name without its suffix: ``"garden/cat"``."""
        folder, slash, file = self.name.rpartition("/")
        return folder + slash + (file.rpartition(".")[0] or file)


@dataclass(frozen=True)
class ImageOutput:
    """The file that ``Format.write`` made of one image.

    Args:
        info: the image.
        path: of the file.
    """

    info: ImageInfo
    path: Path

    def reading(self) -> AbstractContextManager[None]:
        """Convert exceptions of reading the file to an InputError that names it."""
        damage = (OSError, ValueError, KeyError, SyntaxError, zipfile.BadZipFile)
        message = f"cannot read the output of an image, {quote_path(self.path)}"
        return reraise(damage, InputError, message, "process the image again")

    def read_json(self, kind: type[T]) -> T:
        """The file's JSON value.

        Args:
            kind: type of the value, ``dict`` or ``list``.

        Raises:
            InputError: the file is missing or damaged.
        """
        with self.reading():
            value = json.loads(self.path.read_text(encoding="utf-8"))
            if not isinstance(value, kind):
                raise ValueError(f"expected a JSON {kind.__name__}")
        return value


# Write one image's file: (result, path, info, options). The path ends in the format's suffix.
Write = Callable[[LabeledImage, Path, ImageInfo, FormatOptions], None]

# Write the run's files: (outputs, folder, classes, options) -> the paths written.
Merge = Callable[[Iterable[ImageOutput], Path, Sequence[str], FormatOptions], list[Path]]


# Write a list of images that failed: (names and reasons, folder) -> the paths written.
WriteFailed = Callable[[Iterable[tuple[str, str]], Path], list[Path]]


@dataclass(frozen=True)
class Format:
    """A kind of output.

    Args:
        name: as in ``--format``.
        suffix: replaces the suffix of an image's name in the name of its file, such as ``".labels.png"``.
        summary: one phrase for help texts.
        write: writes one image's file atomically; the same input gives the same bytes. Safe to call from many threads
            and processes at once. Raises OutputError if the file cannot be written, InputError for what the format
            cannot represent.
        merge: after a run, writes the files about all images into the run's folder, from the images' files; None if
            there are none. It iterates over ``outputs`` once or twice and never holds them all, so ``outputs`` may be
            lazy but not a generator, and the same order gives the same bytes. Existing files of these names are
            replaced. Raises OutputError, and InputError for an image's file that is missing or damaged.
        check_classes: raises InputError if the format cannot represent these classes with these options; call it before
            a run.
        merged_files: patterns of the names that ``merge`` writes, relative to the folder, with ``*`` for any text
            without ``/``; no image's file may have such a name.
        self_contained: whether a download of one image is its file alone, without those of ``merge``.
        shows_image: whether files show pixels of the image, so that it is needed beside the labels.
        folder: of the images' files inside the folder of results, such as ``"masks/"``; empty is that folder itself.
        companions: formats of files that readers of this one need, too, such as copies of the images.
        write_failed: after ``merge``, writes the images that failed into the run's folder; None if the format has no
            such list.
    """

    name: str
    suffix: str
    summary: str
    write: Write
    merge: Merge | None = None
    check_classes: Callable[[Sequence[str], FormatOptions], None] | None = None
    merged_files: tuple[str, ...] = ()
    shows_image: bool = False
    self_contained: bool = False
    write_failed: WriteFailed | None = None
    folder: str = ""
    companions: tuple[Format, ...] = ()

    def file_name(self, stem: str) -> str:
        """Name of an image's file relative to the folder of results, from :attr:`ImageInfo.stem`."""
        return f"{self.folder}{stem}{self.suffix}"
