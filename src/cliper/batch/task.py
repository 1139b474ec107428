"""Segment an image and write its files."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliper.batch.output_names import OutputNames
from cliper.errors import CliperError, InputError
from cliper.formats import Format, FormatOptions, ImageInfo, find_format
from cliper.prompts import ClassPrompt
from cliper.runner.items import ImageItem
from cliper.runner.manifest import Record
from cliper.runner.storage import Storage
from cliper.runner.task import Task
from cliper.settings import Settings

if TYPE_CHECKING:
    from cliper.decode_pool import DecodePool
    from cliper.result import Segmentation
    from cliper.segmenter import Segmenter

__all__ = ["Cleaning", "SegmentTask"]


@dataclass(frozen=True)
class Cleaning:
    """Arguments of :meth:`cliper.Segmentation.clean`; by default nothing is cleaned."""

    min_area: int = 0
    fill_holes: bool = False
    smooth: int = 0

    def __post_init__(self) -> None:
        for name, value in (("min-area", self.min_area), ("smooth", self.smooth)):
            if value < 0:
                raise InputError(f"--{name}: expected at least 0, got {value}")


@dataclass(frozen=True)
class SegmentTask(Task):
    """Segments images.

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
        InputError: an unknown format, or one that cannot represent these classes.
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

    name = "batch"
    uses_decoder = True

    def __post_init__(self) -> None:
        for format in self.found_formats:
            if format.check_classes is not None:
                format.check_classes(self.class_names)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(item.name for item in self.classes)

    @cached_property
    def found_formats(self) -> tuple[Format, ...]:
        """The formats, in order."""
        return tuple(find_format(name) for name in self.formats)

    @cached_property
    def _names(self) -> OutputNames:
        return OutputNames(self.found_formats)

    def config(self) -> dict[str, Any]:
        """All that the files depend on, as plain values.

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
            "cleaning": asdict(self.cleaning),
            "model": checkpoint_record(self.model),
            "refiner": None if self.refiner is None else checkpoint_record(self.refiner, refiner=True) or self.refiner,
            "settings": self.settings.to_dict(),
            "device": resolve_device(self.device).type,
            "dtype": self.dtype or "float32",
            "seed": self.seed,
            "versions": {name: versions()[name] for name in ("cliper", "torch", "transformers", "diffusers")},
        }

    def output_key(self, name: str) -> str:
        """The stem, which the names of all files of an image begin with."""
        return ImageInfo(name, 0, 0).stem

    def check_name(self, name: str) -> str | None:
        """Why the files of an image cannot have their names, or None."""
        return self._names.problem(self.output_key(name))

    @contextlib.contextmanager
    def load(self, device: str | None = None) -> Iterator[Segmenter]:
        """The segmenter, with the texts encoded."""
        from cliper.segmenter import Segmenter

        segmenter = Segmenter.from_pretrained(
            self.model,
            refiner=self.refiner,
            settings=self.settings,
            device=device or self.device,
            dtype=self.dtype,
            seed=self.seed,
        )
        segmenter.segment_deferred([], [], self.classes, self.background)  # fails if a class is too long, say
        yield segmenter

    def batch_size(self, model: Segmenter) -> int:
        """The segmenter's."""
        return model.batch_size

    def read(self, model: Segmenter, item: ImageItem, decoder: DecodePool | None) -> tuple[Hashable, Any]:
        """Decode an image in a limited process, and resize it for the encoder."""
        from PIL import Image

        assert decoder is not None
        image = Image.fromarray(item.decode(decoder))
        pixels = model.preprocess(image)
        return (image.size, pixels.shape), (image, pixels)

    def process(self, model: Segmenter, images: Sequence[Any]) -> list[Any]:
        """Class maps; labels are assigned by :meth:`record`."""
        decoded, pixels = zip(*images, strict=True)
        return list(model.segment_deferred(decoded, pixels, self.classes, self.background))

    def record(self, item: ImageItem, result: Any, storage: Storage) -> Record:
        """Assign labels, clean them and write all files."""
        found: Segmentation = result()
        if self.cleaning != Cleaning():
            found = found.clean(**asdict(self.cleaning))
        width, height = found.image.size
        info = ImageInfo(item.name, width, height, item.number, item.path if storage.local is not None else None)
        outputs = self.outputs(item.name)
        for format, name in zip(self.found_formats, outputs, strict=True):
            storage.put(name, partial(_write, format, found, info, self.options))
        return Record(item.name, tuple(outputs), areas=found.areas, details={"width": width, "height": height})

    def is_current(self, item: ImageItem, record: Record, storage: Storage) -> bool:
        """Whether all files of an image exist; in an object store that is not asked for each image."""
        return storage.local is None or all(storage.exists(name) for name in record.outputs)

    def discard(self, item: ImageItem, storage: Storage) -> None:
        """Remove the files of an image, as far as possible."""
        for name in self.outputs(item.name):
            with contextlib.suppress(CliperError):
                storage.remove(name)

    def outputs(self, name: str) -> list[str]:
        """Names of the files of the image of that name, in the order of the formats.

        They are a function of the image's name alone.
        """
        return [self.output_key(name) + format.suffix for format in self.found_formats]


def _write(format: Format, result: Segmentation, info: ImageInfo, options: FormatOptions, path: Path) -> None:
    format.write(result, path, info, options)
