"""Segment the images of a benchmark in one or more ways, and count their pixels."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliper.datasets import Benchmark, Sample, custom_benchmark, find_benchmark
from cliper.errors import InputError, SettingsError
from cliper.evaluation.confusion import ConfusionMatrix
from cliper.prompts import ClassPrompt
from cliper.runner.manifest import Record
from cliper.runner.storage import Storage
from cliper.runner.task import Task
from cliper.settings import Settings

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import Image
    from torch import Tensor

    from cliper.segmenter import Segmenter

__all__ = [
    "CustomData",
    "EvaluationTask",
    "LoadedSample",
    "SampleItem",
    "SampleSource",
    "Variant",
    "benchmark_settings",
    "load_benchmark",
]

Segmenters = Mapping[str, "Segmenter"]


@dataclass(frozen=True)
class CustomData:
    """Custom images and masks; see :func:`cliper.datasets.custom_benchmark`."""

    images: Path
    masks: Path
    classes: tuple[ClassPrompt, ...]
    background: tuple[ClassPrompt, ...] = ()
    ignore: tuple[int, ...] | None = None
    offset: int = 0


@dataclass(frozen=True)
class Variant:
    """One way to segment; tables call it by its label."""

    label: str
    settings: Settings
    refiner: str | None = None


@dataclass(frozen=True)
class SampleItem:
    """An item of a run: an image of a benchmark with its ground truth."""

    number: int
    sample: Sample
    error: str | None = None

    @property
    def name(self) -> str:
        """Of the sample."""
        return self.sample.name


class SampleSource:
    """The samples of a benchmark as the source of a run."""

    kind, is_sequential = "dataset", False

    def __init__(self, name: str, samples: Sequence[Sample]) -> None:
        self.uri, self._samples = name, samples

    def items(self) -> Iterator[SampleItem]:
        """In the order of the samples."""
        return (SampleItem(number, sample) for number, sample in enumerate(self._samples, start=1))

    def count(self) -> int:
        """Number of samples."""
        return len(self._samples)


LoadedSample = tuple["Image.Image", "npt.NDArray[Any]", dict[str, "Tensor"]]
"""Image, ground truth [H, W], and the encoder's input by variant."""


@dataclass(frozen=True)
class EvaluationTask(Task):
    """Counts pixels by ground truth and prediction.

    Args:
        data: name of a benchmark, or custom data.
        root: folder of the benchmark's data set; None for custom data.
        model: name of the CLIP checkpoint.
        variants: at least one; all are measured on each image, which is read once.
        limit: number of images, from the first one; None for all.
        device, dtype: as for :meth:`cliper.Segmenter.from_pretrained`.
        allow_tf32: whether a GPU may compute float32 in TF32, as PyTorch's settings say; if not, TF32 is off.
        seed: of the refiner's noise.
        batch: images of one size that are processed together; None takes 1 on a CPU, 8 elsewhere.
        preset: name of the preset that the variants come from, or None.
    """

    data: str | CustomData
    root: Path | None
    model: str
    variants: tuple[Variant, ...]
    limit: int | None = None
    device: str | None = None
    dtype: str | None = None
    allow_tf32: bool = False
    seed: int = 0
    batch: int | None = None
    preset: str | None = field(default=None, compare=False)

    name = "evaluate"

    def __post_init__(self) -> None:
        labels = [variant.label for variant in self.variants]
        if not labels or len(set(labels)) < len(labels):
            raise SettingsError(f"expected at least one variant, each of another name, got {labels}")
        for name, value in (("limit", self.limit), ("batch", self.batch)):
            if value is not None and value < 1:
                raise SettingsError(f"{name}: expected at least 1, got {value}")

    def __getstate__(self) -> dict[str, Any]:
        """Without the benchmark, which cannot be sent to other processes."""
        return {name: value for name, value in self.__dict__.items() if name != "benchmark"}

    @cached_property
    def benchmark(self) -> Benchmark:
        """The benchmark of :attr:`data`; see :func:`load_benchmark`."""
        return load_benchmark(self.data)

    def samples(self) -> list[Sample]:
        """The benchmark's samples, up to the limit.

        Raises:
            InputError: the data set is not there, its list cannot be read, or an image is there twice.
        """
        samples = self.benchmark.samples(self.root or Path())
        names = Counter(sample.name for sample in samples)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise InputError(
                f"{self.benchmark.name}: expected each image once, got {len(twice)} of the same name, {twice[0]} "
                "first; remove the copies"
            )
        return samples[: self.limit]

    def config(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """All that the matrix depends on, as plain values."""
        from cliper.devices import resolve_device
        from cliper.provenance import checkpoint_record, versions

        names = "\n".join(sample.name for sample in samples).encode("utf-8", "surrogateescape")
        benchmark, device = self.benchmark, resolve_device(self.device).type
        refiners = dict.fromkeys(v.refiner for v in self.variants)
        proxies = dict.fromkeys(v.settings.proxy_model for v in self.variants if v.settings.attention == "proxy")
        return {
            "benchmark": self.data if isinstance(self.data, str) else "custom",
            "images": len(samples),
            "images_sha256": hashlib.sha256(names).hexdigest(),
            "preset": self.preset,
            "model": checkpoint_record(self.model),
            "refiners": {name or "none": checkpoint_record(name, refiner=True) for name in refiners if name},
            "proxy_models": {name: checkpoint_record(name, refiner=True) for name in proxies},
            "variants": [
                {"label": v.label, "refiner": v.refiner or "none", "settings": v.settings.to_dict()}
                for v in self.variants
            ],
            "classes": [[item.name, *item.prompts] for item in benchmark.texts.classes],
            "background": [[item.name, *item.prompts] for item in benchmark.texts.background],
            "labels": {
                "ignore": list(benchmark.ignore),
                "mask_ignore": list(benchmark.mask_ignore),
                "offset": benchmark.offset,
            },
            "limit": self.limit,
            "device": device,
            "dtype": self.dtype or "float32",
            "refiner_dtype": self.dtype or ("float32" if device == "cpu" else "float16"),
            "allow_tf32": self.allow_tf32,
            "seed": self.seed,
            "batch": self.batch,
            **{name: versions()[name] for name in ("cliper", "torch")},
        }

    @contextlib.contextmanager
    def load(self, device: str | None = None) -> Iterator[Segmenters]:
        """A segmenter for each variant; CLIP and each refiner are loaded once. TF32 is off unless it is allowed."""
        from cliper.devices import tf32_disabled
        from cliper.segmenter import Segmenter

        with contextlib.nullcontext() if self.allow_tf32 else tf32_disabled():
            by_refiner: dict[str | None, Segmenter] = {}
            for variant in self.variants:
                first = next(iter(by_refiner.values()), None)
                if first is None:
                    loaded = Segmenter.from_pretrained(
                        self.model,
                        refiner=variant.refiner,
                        settings=variant.settings,
                        device=device or self.device,
                        dtype=self.dtype,
                        seed=self.seed,
                    )
                    loaded.batch_size = self.batch or loaded.batch_size
                    by_refiner[variant.refiner] = loaded
                elif variant.refiner not in by_refiner:
                    by_refiner[variant.refiner] = first.with_refiner(variant.refiner)
            yield {v.label: by_refiner[v.refiner].with_settings(v.settings) for v in self.variants}

    def batch_size(self, model: Segmenters) -> int:
        """The segmenters'."""
        return next(iter(model.values())).batch_size

    def read(self, model: Segmenters, item: SampleItem, decoder: object) -> tuple[Hashable, LoadedSample]:
        """Read image and mask. A column is cut out of the image after the whole was resized."""
        whole, whole_labels = self.benchmark.read_whole(item.sample)
        image, labels = item.sample.crop(whole, whole_labels)
        pixels = {name: segmenter.preprocess(whole, item.sample.column) for name, segmenter in model.items()}
        return image.size, (image, labels, pixels)

    def process(self, model: Segmenters, images: Sequence[LoadedSample]) -> list[Any]:
        """Class maps of each variant; labels are assigned by :meth:`record`."""
        classes, background = (list(part) for part in (self.benchmark.texts.classes, self.benchmark.texts.background))
        parts = [image for image, _, _ in images]
        by_variant = {
            name: segmenter.segment_deferred(
                parts, [pixels[name] for _, _, pixels in images], classes, background or None
            )
            for name, segmenter in model.items()
        }
        return [
            (labels, {name: assign[index] for name, assign in by_variant.items()})
            for index, (_, labels, _) in enumerate(images)
        ]

    def record(self, item: SampleItem, result: Any, storage: Storage) -> Record:
        """Assign labels and count pixels."""
        target, assign_labels = result
        counts, miou = {}, {}
        for name, assign in assign_labels.items():
            matrix = ConfusionMatrix(self.benchmark.num_labels, self.benchmark.ignore)
            matrix.update(target, assign().labels)
            counts[name] = matrix.to_counts()
            miou[name] = None if math.isnan(matrix.miou) else round(matrix.miou, 6)
        details = {"miou": miou, "counts": counts, "files": file_signature(item.sample.image, item.sample.mask)}
        return Record(item.name, details=details)

    def is_current(self, item: SampleItem, record: Record, storage: Storage) -> bool:
        """Whether image and mask are the files that were counted."""
        return bool(record.details.get("files") == file_signature(item.sample.image, item.sample.mask))

    def absolute(self) -> EvaluationTask:
        """The same with absolute paths of the data, for workers that run in other folders."""
        data = self.data
        if isinstance(data, CustomData):
            data = replace(data, images=data.images.absolute(), masks=data.masks.absolute())
        return replace(self, data=data, root=None if self.root is None else self.root.absolute())


def load_benchmark(data: str | CustomData) -> Benchmark:
    """A benchmark by its name, or of custom data.

    Raises:
        InputError: there is none of that name, or the custom data is not there.
    """
    if isinstance(data, str):
        return find_benchmark(data)
    return custom_benchmark(
        data.images, data.masks, data.classes, background=data.background, ignore=data.ignore, offset=data.offset
    )


def benchmark_settings(settings: Settings, benchmark: Benchmark) -> Settings:
    """A checkpoint's recommended settings for a benchmark: without a background class, no class is ever off, and only
    values near 0 are background.

    The published settings of VOC20 and Cityscapes do the same.
    """
    return settings.replace(score_threshold=0.0, background_threshold=1e-4) if 0 in benchmark.ignore else settings


def file_signature(*paths: Path) -> str:
    """Size and time of change of files, so that a file that was replaced is noticed; "" if one is missing."""
    try:
        states = [path.stat() for path in paths]
    except OSError:
        return ""
    return " ".join(f"{state.st_size}-{state.st_mtime_ns}" for state in states)
