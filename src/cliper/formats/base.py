"""What every format has: a writer for one picture, and for some a step that puts a whole run together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from cliper.errors import InputError

__all__ = ["Format", "FormatOptions", "ImageInfo", "ImageOutput", "LabeledImage", "Merge", "Write"]


@dataclass(frozen=True)
class FormatOptions:
    """What all writers share.

    Args:
        tolerance: of polygons, in pixels: how far a simplified border may be from the exact one; 0 keeps every corner.
        quality: of JPEG and WebP overlays, 1 to 100.
        image_folder: what the folder that holds the pictures is called, where addresses are to begin with it.

    Raises:
        InputError: a value out of range.

    Example:
        >>> FormatOptions(tolerance=2).quality
        90
    """

    tolerance: float = 1.0
    quality: int = 90
    image_folder: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance <= 1000:
            raise InputError(f"tolerance: expected pixels from 0 to 1000, got {self.tolerance!r}")
        if isinstance(self.quality, bool) or not isinstance(self.quality, int) or not 1 <= self.quality <= 100:
            raise InputError(f"quality: expected a whole number from 1 to 100, got {self.quality!r}")


@dataclass(frozen=True)
class ImageInfo:
    """Which picture of a run a file is about.

    Args:
        name: path relative to the run's input, with its suffix and with ``/``: ``"garden/cat.jpg"``.
        width: in pixels, after the EXIF turn.
        height: in pixels.
        id: its number in the sorted run, from 1; no two pictures share one.
        source: the file that it is, where that and the files written are on one machine's disks; else None.
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
    """One picture's file of a format, as its ``write`` left it.

    Args:
        picture: the picture.
        path: of the file.
    """

    info: ImageInfo
    path: Path


class LabeledImage(Protocol):
    """What formats read of a result; :class:`cliper.Segmentation` has all of it."""

    @property
    def image(self) -> Image.Image:
        """RGB, H x W pixels."""

    @property
    def labels(self) -> npt.NDArray[Any]:
        """[H, W] integers from 0 to C; 0 is background, i + 1 is ``classes[i]``."""

    @property
    def classes(self) -> tuple[str, ...]:
        """C names."""

    @property
    def confidence(self) -> npt.NDArray[np.float32]:
        """[C] float32."""

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """[C, H, W] float32; large, so only asked for by formats that store it."""

    @property
    def model(self) -> str:
        """Name of the checkpoint, or path of its folder."""


# One picture's file: (result, path, picture, options). The path ends in the format's suffix.
Write = Callable[[LabeledImage, Path, ImageInfo, FormatOptions], None]

# A run's files: (parts, folder, classes, options) -> the paths written.
Merge = Callable[[Iterable[ImageOutput], Path, Sequence[str], FormatOptions], list[Path]]


@dataclass(frozen=True)
class Format:
    """A kind of output.

    Args:
        name: as in ``--format``.
        suffix: what comes after a picture's name in the name of its file, such as ``".labels.png"``.
        summary: what it is, in a few words, for help texts.
        write: writes one picture's file, whole or not at all; the same bytes for the same input. May be called from
            many threads and processes at once. Raises OutputError if the file cannot be written, and InputError for
            what the format cannot hold.
        merge: after a run, makes the files that are about all pictures, in the run's output folder, from the
            pictures' files; None where there is nothing to do. ``parts`` is gone through once or twice, in its order,
            so it may be lazy but not a generator, and must be in the same order each time for the same bytes. It is
            never held as a whole. Existing files of these names are replaced; the pictures' files stay as they are.
            Raises OutputError, and InputError for a part that is missing or damaged.
        check_classes: raises InputError if the format cannot hold these classes; to be called before a run.
        merged_files: all names that ``merge`` makes, relative to the folder, with ``*`` for any text without ``/``; no
            picture's file may have one of them.
    """

    name: str
    suffix: str
    summary: str
    write: Write
    merge: Merge | None = None
    check_classes: Callable[[Sequence[str]], None] | None = None
    merged_files: tuple[str, ...] = ()
