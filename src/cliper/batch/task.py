"""Segment an image and write its files."""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from cliper.formats import Format, FormatOptions, ImageInfo, find_formats
from cliper.model_config import ModelConfig, concurrency
from cliper.prompts import ClassPrompt
from cliper.runner.items import ImageItem
from cliper.runner.manifest import Record
from cliper.runner.run_dir import MANIFEST, RUN
from cliper.runner.storage import Storage
from cliper.runner.task import Task

if TYPE_CHECKING:
    from cliper.decode_pool import DecodePool
    from cliper.result import Segmentation
    from cliper.segmenter import Segmenter

__all__ = ["Cleaning", "SegmentTask"]


@dataclass(frozen=True)
class Cleaning:
    """Arguments of :meth:`cliper.Segmentation.clean`; by default nothing is cleaned."""

    min_area: int | str = 0
    fill_holes: bool = False
    smooth: int = 0


@dataclass(frozen=True)
class SegmentTask(Task):
    """Segments images.

    Args:
        classes: what to look for.
        background: as for :meth:`cliper.Segmenter.__call__`.
        formats: names of the formats of the files, each once.
        models: checkpoint, refiner and settings.
        cleaning: of the label maps.
        options: of the formats.

    Raises InputError for an unknown format, or one that cannot represent these classes.
    """

    classes: tuple[ClassPrompt, ...]
    background: str | tuple[ClassPrompt, ...] | None
    formats: tuple[str, ...]
    models: ModelConfig
    cleaning: Cleaning = Cleaning()
    options: FormatOptions = field(default_factory=FormatOptions)

    name = "batch"

    def __post_init__(self) -> None:
        for format in self.found_formats:
            if format.check_classes is not None:
                format.check_classes(self.class_names, self.options)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(item.name for item in self.classes)

    @functools.cached_property
    def found_formats(self) -> tuple[Format, ...]:
        """The formats, in order, then those of files that their readers need, too."""
        return find_formats(self.formats)

    def config(self) -> dict[str, Any]:
        """All that the files depend on, as plain values. Raises CliperError if a model cannot be found or fetched."""
        background = self.background
        return {
            "classes": [[item.name, *item.prompts] for item in self.classes],
            "background": [[b.name, *b.prompts] for b in background] if isinstance(background, tuple) else background,
            "formats": list(self.formats),
            "tolerance": self.options.tolerance,
            "quality": self.options.quality,
            "label_mode": self.options.label_mode,
            "min_area": self.options.min_area,
            "ignore_background": self.options.ignore_background,
            "cleaning": asdict(self.cleaning),
            **self.models.to_dict(),
        }

    def outputs(self, name: str) -> list[str]:
        """Names of the files of an image, in the order of the formats: their folders, its stem, their suffixes."""
        stem = ImageInfo(name, 0, 0).stem
        return [format.file_name(stem) for format in self.found_formats]

    def check_name(self, name: str) -> str | None:
        """Why the files of an image cannot have their names: those of the run's own files, or of other formats'."""
        stem = ImageInfo(name, 0, 0).stem
        # A folder would take the place of a file, too.
        for path in (*self.outputs(name), *map(str, PurePosixPath(stem).parents)):
            if self._run_files.fullmatch(path):
                return f"its result would have the name of a file of the run: {path}; rename it, or use --glob"
        # With COCO (.coco.json) and LabelMe (.json), "a.coco" in LabelMe and "a" in COCO would have one name.
        for long, short in itertools.permutations(self.found_formats, 2):
            ending = long.suffix.removesuffix(short.suffix)
            if long.folder == short.folder and ending != long.suffix and stem.endswith(ending):
                return f"its result could have the name of another image's: {stem} ends in {ending}; rename it"
            # "masks/a.labels.png" is the label map of "masks/a.jpg", and the mask of "a.labels.jpg".
            if long.folder != short.folder == "" and stem.startswith(long.folder):
                return f"its result could have the name of another image's: {stem} is in {long.folder}; rename it"
        return None

    @functools.cached_property
    def _run_files(self) -> re.Pattern[str]:
        patterns = [RUN, MANIFEST, "overlay.mp4", *(name for one in self.found_formats for name in one.merged_files)]
        return re.compile("|".join("[^/]*".join(map(re.escape, pattern.split("*"))) for pattern in patterns))

    @contextlib.contextmanager
    def load(self, device: str | None = None) -> Iterator[Segmenter]:
        """The segmenter, with the texts encoded."""
        segmenter = self.models.load(device)
        segmenter.segment_deferred([], self.classes, self.background)  # fails if a class is too long, say
        yield segmenter

    def limits(self, model: Segmenter) -> tuple[int, int]:
        """The segmenter's batch size, and one thread for each core of a CPU."""
        return model.batch_size, concurrency(model)

    def read(self, model: Segmenter, item: ImageItem, decoder: DecodePool) -> tuple[Hashable, Any]:
        """Decode an image in a limited process, and resize it for the encoder."""
        from PIL import Image

        image = Image.fromarray(item.decode(decoder))
        pixels = model.preprocess(image)
        return (image.size, pixels.shape), (image, pixels)

    def process(self, model: Segmenter, images: Sequence[Any]) -> list[Any]:
        """Class maps; labels are assigned by :meth:`record`."""
        encoded = model.encode_images(*zip(*images, strict=True))
        return list(model.segment_deferred(encoded, self.classes, self.background))

    def record(self, item: ImageItem, result: Any, storage: Storage) -> Record:
        """Assign labels, clean them and write all files."""
        found: Segmentation = result()
        if self.cleaning != Cleaning():
            found = found.clean(**asdict(self.cleaning))
        width, height = found.image.size
        info = ImageInfo(item.name, width, height, item.number, item.path if storage.local is not None else None)
        outputs = self.outputs(item.name)
        for format, name in zip(self.found_formats, outputs, strict=True):
            storage.put(name, lambda path: format.write(found, path, info, self.options))  # noqa: B023 - called at once
        confidence = {n: round(c, 4) for n, c in zip(found.classes, found.confidence.tolist(), strict=True)}
        details = {"width": width, "height": height, "confidence": confidence}
        return Record(item.name, tuple(outputs), areas=found.areas, details=details)

    def is_current(self, item: ImageItem, record: Record, storage: Storage) -> bool:
        """Whether all files of an image exist; in an object store that is not asked for each image."""
        return storage.local is None or all(storage.exists(name) for name in record.outputs)
