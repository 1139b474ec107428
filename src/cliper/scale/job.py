"""What is to be done with each picture, as plain values: a worker on another machine can be handed it."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliper.errors import CliperError, ImageError, InputError, OutputError, ResourceError
from cliper.formats import Format, FormatOptions, ImageInfo, find_format
from cliper.prompts import ClassPrompt
from cliper.scale.items import Item
from cliper.scale.manifest import Record
from cliper.scale.places import Place
from cliper.settings import Settings

if TYPE_CHECKING:
    from PIL import Image

    from cliper.images import ImageSource
    from cliper.result import Segmentation
    from cliper.segmenter import Segmenter

__all__ = ["Cleaning", "Job", "Loaded", "Worker", "output_names", "read_item"]

# A file that is refused for one of these is refused for its own name's sake; the next one may well be written.
_OF_ONE_FILE = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EILSEQ, errno.EINVAL}


@dataclass(frozen=True)
class Cleaning:
    """What :meth:`cliper.Segmentation.clean` is given; as it stands nothing is cleaned."""

    min_area: int = 0
    fill_holes: bool = False
    smooth: int = 0

    def __post_init__(self) -> None:
        for name, value in (("min-area", self.min_area), ("smooth", self.smooth)):
            if value < 0:
                raise InputError(f"--{name}: expected at least 0, got {value}")


@dataclass(frozen=True)
class Job:
    """Which words, which model, which files.

    Args:
        classes: what to look for.
        background: as for :meth:`cliper.Segmenter.__call__`.
        formats: names of the formats of the files, each once.
        model: name of the CLIP checkpoint.
        refiner: name of the refiner, or None.
        settings: of the method.
        device, dtype, seed: as for :meth:`cliper.Segmenter.from_pretrained`.
        cleaning: of the label maps.
        options: of the formats.

    Raises:
        InputError: an unknown format, or one that cannot hold these classes.
    """

    classes: tuple[ClassPrompt, ...]
    background: str | tuple[ClassPrompt, ...] | None
    formats: tuple[str, ...]
    model: str
    refiner: str | None
    settings: Settings
    device: str | None = None
    dtype: str | None = None
    seed: int = 0
    cleaning: Cleaning = Cleaning()
    options: FormatOptions = field(default_factory=FormatOptions)

    def __post_init__(self) -> None:
        for format in self.found_formats():
            if format.check_classes is not None:
                format.check_classes(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes."""
        return tuple(item.name for item in self.classes)

    def found_formats(self) -> list[Format]:
        """The formats themselves, in order."""
        return [find_format(name) for name in self.formats]

    def load(self) -> Segmenter:
        """The segmenter, with the texts encoded.

        Raises:
            CliperError: as :meth:`cliper.Segmenter.from_pretrained`; a class that cannot be read.
        """
        from cliper.segmenter import Segmenter

        segmenter = Segmenter.from_pretrained(
            self.model,
            refiner=self.refiner,
            settings=self.settings,
            device=self.device,
            dtype=self.dtype,
            seed=self.seed,
        )
        segmenter.encode_text(self.classes)  # a class that cannot be read is no picture's fault
        return segmenter

    def identity(self) -> dict[str, Any]:
        """What a run that goes on has to share with the one that began: all that its files depend on.

        Raises:
            CliperError: a model that does not exist or cannot be fetched.
        """
        from cliper.devices import resolve_device
        from cliper.provenance import checkpoint_record, versions

        background = self.background
        return {
            "classes": [[item.name, *item.prompts] for item in self.classes],
            "background": [[b.name, *b.prompts] for b in background] if isinstance(background, tuple) else background,
            "formats": list(self.formats),
            "tolerance": self.options.tolerance,
            "quality": self.options.quality,
            "cleaning": {
                "min_area": self.cleaning.min_area,
                "fill_holes": self.cleaning.fill_holes,
                "smooth": self.cleaning.smooth,
            },
            "model": checkpoint_record(self.model),
            "refiner": None if self.refiner is None else checkpoint_record(self.refiner, refiner=True) or self.refiner,
            "settings": self.settings.to_dict(),
            "device": resolve_device(self.device).type,
            "dtype": self.dtype or "float32",
            "seed": self.seed,
            "versions": {name: versions()[name] for name in ("cliper", "torch", "transformers", "diffusers")},
        }


@dataclass(frozen=True)
class Loaded:
    """A picture that was read, or why it could not be.

    Args:
        item: which.
        picture: RGB, or None.
        error: the one line that says what is wrong, or None.
        seconds: that reading took.
    """

    item: Item
    picture: Image.Image | None = None
    error: str | None = None
    seconds: float = 0.0

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height, if there is a picture."""
        return None if self.picture is None else self.picture.size


def read_item(item: Item) -> Loaded:
    """Read a picture; what is wrong with it comes back as text."""
    started = time.perf_counter()
    try:
        picture = item.read()
    except (ImageError, ResourceError) as error:
        return Loaded(item, error=str(error), seconds=time.perf_counter() - started)
    return Loaded(item, picture, seconds=time.perf_counter() - started)


class Worker:
    """A model and a place for files: what each engine does with pictures.

    Args:
        job: what is to be done.
        segmenter: the job's.
        place: the run's folder.
    """

    def __init__(self, job: Job, segmenter: Segmenter, place: Place) -> None:
        self._job, self._segmenter, self._place = job, segmenter, place
        self._formats = job.found_formats()

    @property
    def batch_size(self) -> int:
        """At most so many pictures of one size are to be segmented together."""
        return self._segmenter.batch_size

    def segment(self, group: Sequence[Loaded]) -> list[tuple[Loaded, Segmentation | str, float]]:
        """Segment pictures of one size together.

        Returns:
            For each its result, or why there is none, and its share of the seconds.

        Raises:
            CliperError: what is no picture's fault, such as weights without numbers.
        """
        job, started = self._job, time.perf_counter()
        pictures: list[ImageSource] = [one.picture for one in group if one.picture is not None]
        try:
            results = self._segmenter(pictures, job.classes, job.background)
        except (ImageError, ResourceError) as error:
            if len(group) > 1:  # one of them is at fault, or all together are too many
                return [done for one in group for done in self.segment([one])]
            return [(group[0], str(error), time.perf_counter() - started)]
        share = (time.perf_counter() - started) / len(group)
        return [(one, result, share) for one, result in zip(group, results, strict=True)]

    def write(self, item: Item, result: Segmentation, seconds: float) -> Record:
        """Clean a result and write its files: all of them, or none.

        Args:
            item: which picture.
            result: its result.
            seconds: that it took until now.

        Raises:
            OutputError: nothing can be written there any more.
        """
        job, started = self._job, time.perf_counter()
        source = item.path if self._place.local is not None else None
        picture = ImageInfo(item.name, result.image.width, result.image.height, item.number, source)
        outputs: list[str] = []
        try:
            if job.cleaning != Cleaning():
                cleaning = job.cleaning
                result = result.clean(
                    min_area=cleaning.min_area, fill_holes=cleaning.fill_holes, smooth=cleaning.smooth
                )
            for format, name in zip(self._formats, self.outputs(item), strict=True):
                self._place.put(name, partial(_write, format, result, picture, job.options))
                outputs.append(name)
        except CliperError as error:
            self.remove(item)
            if _ends_the_run(error):
                raise
            return Record.failed(item.name, error, _rounded(seconds + time.perf_counter() - started))
        seconds += time.perf_counter() - started
        return Record(
            item.name,
            tuple(outputs),
            seconds=_rounded(seconds),
            areas=result.areas,
            width=picture.width,
            height=picture.height,
        )

    def remove(self, item: Item) -> None:
        """Remove what there is of a picture's files, where that can be done."""
        for name in self.outputs(item):
            with contextlib.suppress(OutputError):
                self._place.remove(name)

    def outputs(self, item: Item) -> list[str]:
        """Names of a picture's files."""
        return output_names(item.name, self._formats)


def _write(format: Format, result: Segmentation, picture: ImageInfo, options: FormatOptions, path: Path) -> None:
    format.write(result, path, picture, options)


def output_names(name: str, formats: Sequence[Format]) -> list[str]:
    """Names of the files of the picture called ``name``.

    Example:
        >>> output_names("a/cat.jpg", [find_format("labels")])
        ['a/cat.labels.png']
    """
    stem = ImageInfo(name, 0, 0).stem
    return [stem + format.suffix for format in formats]


def _ends_the_run(error: CliperError) -> bool:
    """Whether the next picture would meet the same."""
    if not isinstance(error, OutputError):
        return False
    cause = error.__cause__
    if isinstance(cause, OSError):
        return cause.errno not in _OF_ONE_FILE
    return cause is not None


def _rounded(seconds: float) -> float:
    return round(seconds, 4)
