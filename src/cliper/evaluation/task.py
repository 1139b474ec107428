"""Segment the images of a benchmark in one or more ways, and count their pixels."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cliper.datasets import Benchmark, BenchmarkTexts, Sample, Vocabulary, find_benchmark
from cliper.errors import InputError, SettingsError
from cliper.evaluation.confusion import ConfusionMatrix
from cliper.model_config import ModelConfig, concurrency
from cliper.runner.items import Source
from cliper.runner.manifest import Record
from cliper.runner.storage import Storage
from cliper.runner.task import Task
from cliper.settings import ATTENTIONS

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import Image
    from torch import Tensor

    from cliper.decode_pool import DecodePool
    from cliper.encoded_image import EncodedImage
    from cliper.segmenter import Segmenter

__all__ = ["EvaluationTask", "SampleItem", "SampleSource", "Variant", "ablation_variants", "vocabulary_variants"]

_Segmenters = Mapping[str, "Segmenter"]


class Variant(NamedTuple):
    """One way to segment; tables call it by its label. Without a vocabulary, by the texts of the benchmark."""

    label: str
    models: ModelConfig
    vocabulary: Vocabulary | None = None


class SampleItem(NamedTuple):
    """An item of a run: an image of a benchmark with its ground truth."""

    number: int
    name: str
    sample: Sample
    error: str | None = None


class SampleSource(Source):
    """The samples of a benchmark as the source of a run."""

    def __init__(self, name: str, samples: Sequence[Sample]) -> None:
        super().__init__(name)
        self._samples = samples

    def items(self) -> Iterator[SampleItem]:
        """In the order of the samples."""
        return (SampleItem(number, sample.name, sample) for number, sample in enumerate(self._samples, start=1))


_LoadedSample = tuple["Image.Image", "npt.NDArray[Any]", dict[int, "Tensor"]]
"""Image, ground truth [H, W], and the encoder's input by the setting ``size``."""


@dataclass(frozen=True)
class EvaluationTask(Task):
    """Counts pixels by ground truth and prediction.

    Args:
        data: name of a benchmark, or a custom one.
        folders: of the data, for the report; ``"root"`` is that of a benchmark's data set.
        variants: at least one, with the same CLIP, device, dtype and seed; all are measured on each image, which is
            read once, and goes through each network once where only settings after the networks differ.
        limit: number of images, from the first one; None for all.
        allow_tf32: whether a GPU may compute float32 in TF32, as PyTorch's settings say; if not, TF32 is off.
        batch: images of one size that are processed together; None takes 1 on a CPU, 8 elsewhere.
        preset: name of the preset that the variants come from, or None.
    """

    data: str | Benchmark
    folders: Mapping[str, Path]
    variants: tuple[Variant, ...]
    limit: int | None = None
    allow_tf32: bool = False
    batch: int | None = None
    preset: str | None = field(default=None, compare=False)

    name = "evaluate"
    decoder = "cliper.datasets.decoding:file_decoder"

    def __getstate__(self) -> dict[str, Any]:
        """Without a published benchmark, which cannot be sent to other processes."""
        return {name: value for name, value in self.__dict__.items() if name != "benchmark"}

    @cached_property
    def benchmark(self) -> Benchmark:
        """The benchmark of :attr:`data`. Raises InputError if there is none of that name."""
        return find_benchmark(self.data) if isinstance(self.data, str) else self.data

    def samples(self) -> list[Sample]:
        """The benchmark's samples, up to the limit. Raises InputError if they are missing, or one is there twice."""
        samples = self.benchmark.samples(self.folders.get("root", Path()))
        twice = [name for name, count in Counter(sample.name for sample in samples).items() if count > 1]
        if twice:
            found = f"{len(twice)} of the same name, {twice[0]} first"
            raise InputError(f"{self.benchmark.name}: expected each image once, got {found}; remove the copies")
        return samples[: self.limit]

    @property
    def models(self) -> ModelConfig:
        """Those of the first variant."""
        return self.variants[0].models

    def texts(self, variant: Variant) -> BenchmarkTexts:
        """Prompts of classes and background."""
        return self.benchmark.texts if variant.vocabulary is None else variant.vocabulary.texts

    def label_names(self, variant: Variant) -> tuple[str, ...]:
        """Names of the labels from 1: the classes, and then the distractors of the variant's vocabulary."""
        return self.benchmark.class_names + (() if variant.vocabulary is None else variant.vocabulary.distractors)

    def new_matrix(self, variant: Variant) -> ConfusionMatrix:
        """An empty matrix of a variant's labels."""
        return ConfusionMatrix(len(self.label_names(variant)) + 1, self.benchmark.ignore)

    def config(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """All that the matrix depends on, as plain values."""
        from cliper.provenance import checkpoint_record

        names = "\n".join(sample.name for sample in samples).encode("utf-8", "surrogateescape")
        benchmark, first = self.benchmark, self.models.to_dict()
        vocabularies = dict.fromkeys(variant.vocabulary for variant in self.variants if variant.vocabulary)
        refiners = dict.fromkeys(variant.models.refiner for variant in self.variants)
        settings = [variant.models.settings for variant in self.variants]
        proxies = dict.fromkeys(one.proxy_model for one in settings if one.attention == "proxy")
        vaes = dict.fromkeys(vae for variant in self.variants if (vae := variant.models.tiny_vae))
        return {
            "benchmark": benchmark.name,
            "images": len(samples),
            "images_sha256": hashlib.sha256(names).hexdigest(),
            "preset": self.preset,
            **{key: first[key] for key in ("model", "device", "dtype", "seed", "versions")},
            "refiners": {name or "none": checkpoint_record(name, refiner=True) for name in refiners if name},
            "proxy_models": {name: checkpoint_record(name, refiner=True) for name in proxies},
            "refine_vaes": {name: checkpoint_record(name, kind="vae") for name in vaes},
            "variants": [
                {"label": label, "refiner": models.refiner or "none", "settings": models.settings.to_dict()}
                for label, models, _ in self.variants
            ],
            **_text_lists(self.texts(self.variants[0])),
            "vocabularies": {one.name: {**_text_lists(one.texts), "seed": one.seed} for one in vocabularies},
            "labels": {
                "ignore": list(benchmark.ignore),
                "mask_ignore": list(benchmark.mask_ignore),
                "offset": benchmark.offset,
            },
            "limit": self.limit,
            "refiner_dtype": self.models.dtype or ("float32" if first["device"] == "cpu" else "float16"),
            "allow_tf32": self.allow_tf32,
            "batch": self.batch,
        }

    @contextlib.contextmanager
    def load(self, device: str | None = None) -> Iterator[_Segmenters]:
        """A segmenter for each variant; CLIP and each refiner are loaded once. TF32 is off unless it is allowed."""
        from cliper.devices import tf32_disabled

        with contextlib.nullcontext() if self.allow_tf32 else tf32_disabled():
            first = self.models.load(device)
            first.batch_size = self.batch or first.batch_size
            by_refiner = {self.models.refiner: first}
            for _, models, _ in self.variants:
                if models.refiner not in by_refiner:
                    by_refiner[models.refiner] = first.with_refiner(models.refiner)
            loaded = {}
            for variant in self.variants:
                label, models, _ = variant
                loaded[label] = by_refiner[models.refiner].with_settings(models.settings)
                texts = self.texts(variant)
                loaded[label].segment_deferred([], texts.classes, texts.background or None)  # encodes the texts, once
            yield loaded

    def limits(self, model: _Segmenters) -> tuple[int, int]:
        """The segmenters' batch size, and as many threads as each of them allows."""
        return next(iter(model.values())).batch_size, min(map(concurrency, model.values()))

    def read(self, model: _Segmenters, item: SampleItem, decoder: DecodePool) -> tuple[Hashable, _LoadedSample]:
        """Decode image and mask in a limited process. A column is cut out of the image after the whole was resized."""
        import numpy as np

        def decode(path: Path, kind: str) -> npt.NDArray[Any]:
            pixels = decoder.decode(path, kind=kind)
            return pixels.view(np.int32)[..., 0] if kind == "labels" else pixels

        whole, whole_labels = self.benchmark.read_whole(item.sample, decode)
        image, labels = item.sample.crop(whole, whole_labels)
        by_size = {segmenter.settings.size: segmenter for segmenter in model.values()}
        pixels = {size: segmenter.preprocess(whole, item.sample.column) for size, segmenter in by_size.items()}
        return image.size, (image, labels, pixels)

    def process(self, model: _Segmenters, images: Sequence[_LoadedSample]) -> list[Any]:
        """Class maps of each variant; labels are assigned by :meth:`record`."""
        texts = {variant.label: self.texts(variant) for variant in self.variants}
        parts = [image for image, _, _ in images]
        known: list[list[EncodedImage]] = []
        by_variant = {}
        for label, segmenter in model.items():
            pixels = [by_size[segmenter.settings.size] for _, _, by_size in images]
            known.append(segmenter.encode_images(parts, pixels, known))
            words = texts[label]
            by_variant[label] = segmenter.segment_deferred(known[-1], words.classes, words.background or None)
        return [
            (labels, {label: assign[index] for label, assign in by_variant.items()})
            for index, (_, labels, _) in enumerate(images)
        ]

    def record(self, item: SampleItem, result: Any, storage: Storage) -> Record:
        """Assign labels and count pixels."""
        target, assign_labels = result
        counts, miou = {}, {}
        for variant in self.variants:
            name, matrix = variant.label, self.new_matrix(variant)
            matrix.update(target, assign_labels[name]().labels)
            counts[name] = matrix.to_counts()
            miou[name] = None if math.isnan(matrix.miou) else round(matrix.miou, 6)
        details = {"miou": miou, "counts": counts, "files": file_signature(item.sample.image, item.sample.mask)}
        return Record(item.name, details=details)

    def is_current(self, item: SampleItem, record: Record, storage: Storage) -> bool:
        """Whether image and mask are the files that were counted."""
        return bool(record.details.get("files") == file_signature(item.sample.image, item.sample.mask))


def ablation_variants(
    models: ModelConfig, attentions: Sequence[str], features: Sequence[bool], refiners: Sequence[str | None]
) -> tuple[Variant, ...]:
    """Every attention with every feature fusion and every refiner.

    Raises SettingsError for an unknown attention, InputError if there is nothing to compare.
    """
    variants = []
    for attention, fuse, refiner in product(attentions, features, refiners):
        if attention not in ATTENTIONS:
            raise SettingsError(f"attention: expected some of {', '.join(ATTENTIONS)}, got {attention!r}")
        label = f"{attention}, feature fusion {'on' if fuse else 'off'}, refiner {refiner or 'none'}"
        settings = models.settings.replace(attention=attention, fuse_features=fuse)
        variants.append(Variant(label, replace(models, settings=settings, refiner=refiner)))
    if not variants:
        raise InputError("expected at least one attention, feature fusion and refiner to compare, got none")
    return tuple(variants)


def vocabulary_variants(variants: Sequence[Variant], vocabularies: Sequence[Vocabulary]) -> tuple[Variant, ...]:
    """Every variant with every vocabulary."""
    return tuple(
        Variant(f"{label}, vocabulary {vocabulary.name}" if label else vocabulary.name, models, vocabulary)
        for (label, models, _), vocabulary in product(variants, vocabularies)
    )


def _text_lists(texts: BenchmarkTexts) -> dict[str, Any]:
    """Name and prompts of each class and background name, as plain values."""
    words = texts.background
    return {
        "classes": [[item.name, *item.prompts] for item in texts.classes],
        "background": words if isinstance(words, str) else [[item.name, *item.prompts] for item in words],
    }


def file_signature(*paths: Path) -> str:
    """Size and time of change of files, so that a file that was replaced is noticed; "" if one is missing."""
    try:
        states = [path.stat() for path in paths]
    except OSError:
        return ""
    return " ".join(f"{state.st_size}-{state.st_mtime_ns}" for state in states)
