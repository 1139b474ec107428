"""What is to be evaluated, as plain values: a worker in another process, or on another machine, can be handed it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliper.datasets import Benchmark, Sample, custom_benchmark, find_benchmark
from cliper.errors import InputError, SettingsError
from cliper.prompts import ClassPrompt
from cliper.settings import ATTENTIONS, Settings

if TYPE_CHECKING:
    from cliper.segmenter import Segmenter

__all__ = ["CustomData", "Job", "Variant", "ablation_variants", "benchmark_settings", "load_benchmark"]


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
    """One way to segment.

    Args:
        label: what tables call it.
        settings: its settings.
        refiner: name of its refiner, or None.
    """

    label: str
    settings: Settings
    refiner: str | None = None


@dataclass(frozen=True)
class Job:
    """An evaluation: which pictures, which model, and in which ways.

    Args:
        data: name of a benchmark, or one's own data.
        root: folder of the benchmark's data set; None for one's own data.
        model: name of the CLIP checkpoint.
        variants: at least one; all are measured on each picture, which is read once.
        limit: only so many pictures, the first ones; None for all.
        device, dtype: as for :meth:`cliper.Segmenter.from_pretrained`.
        allow_tf32: whether a GPU may compute float32 in TF32, as PyTorch's settings say; if not, TF32 is off.
        seed: of the refiner's noise.
        batch: pictures of one size that are handed to the model together; None takes 1 on a CPU, 8 elsewhere.
        decoders: threads that read pictures ahead of the model.
        skip_errors: whether a picture that cannot be used is named and left out, or ends the run.
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
    decoders: int = 2
    skip_errors: bool = False
    preset: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        labels = [variant.label for variant in self.variants]
        if not labels or len(set(labels)) < len(labels):
            raise SettingsError(f"expected at least one variant, each of another name, got {labels}")
        for name, value in (("limit", self.limit), ("batch", self.batch), ("decoders", self.decoders)):
            if value is not None and value < 1:
                raise SettingsError(f"{name}: expected at least 1, got {value}")

    def benchmark(self) -> Benchmark:
        """The benchmark of :attr:`data`; see :func:`load_benchmark`."""
        return load_benchmark(self.data)

    def samples(self, benchmark: Benchmark) -> list[Sample]:
        """The benchmark's samples, as many as are wanted.

        Raises:
            InputError: the data set is not there, its list cannot be read, or a picture is there twice.
        """
        samples = benchmark.samples(self.root or Path())
        names = Counter(sample.name for sample in samples)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise InputError(
                f"{benchmark.name}: expected each picture once, got {len(twice)} of the same name, {twice[0]} first; "
                "remove the copies"
            )
        return samples[: self.limit]

    def load(self, device: str | None = None) -> dict[str, Segmenter]:
        """A segmenter for each variant; the CLIP and each refiner are loaded once.

        Args:
            device: in place of the job's own.

        Raises:
            CliperError: as :meth:`cliper.Segmenter.from_pretrained`.
        """
        from cliper.segmenter import Segmenter

        by_refiner: dict[str | None, Segmenter] = {}
        for variant in self.variants:
            if variant.refiner not in by_refiner:
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
                    if self.batch is not None:
                        loaded.batch_size = self.batch
                else:
                    loaded = first.with_refiner(variant.refiner)
                by_refiner[variant.refiner] = loaded
        return {v.label: by_refiner[v.refiner].with_settings(v.settings) for v in self.variants}

    def float32_precision(self) -> AbstractContextManager[None]:
        """While it is entered, this process computes float32 without TF32, unless the job allows it."""
        from cliper.devices import tf32_disabled

        return nullcontext() if self.allow_tf32 else tf32_disabled()

    def identity(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """What a run that goes on has to share with the one that began: all that its matrix depends on."""
        from cliper.provenance import checkpoint_record, versions

        names = "\n".join(sample.name for sample in samples).encode("utf-8", "surrogateescape")
        benchmark, device = self.benchmark(), _device_type(self.device)
        refiners = dict.fromkeys(v.refiner for v in self.variants)
        proxies = dict.fromkeys(v.settings.proxy_model for v in self.variants if v.settings.attention == "proxy")
        return {
            "benchmark": self.data if isinstance(self.data, str) else "custom",
            "pictures": len(samples),
            "pictures_sha256": hashlib.sha256(names).hexdigest(),
            "preset": self.preset,
            "model": checkpoint_record(self.model),
            "refiners": {name or "none": checkpoint_record(name, refiner=True) for name in refiners if name},
            "proxy_models": {name: checkpoint_record(name, refiner=True) for name in proxies},
            "variants": [
                {"label": v.label, "refiner": v.refiner or "none", "settings": v.settings.to_dict()}
                for v in self.variants
            ],
            "classes": _texts(benchmark.texts.classes),
            "background": _texts(benchmark.texts.background),
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


def load_benchmark(data: str | CustomData) -> Benchmark:
    """A benchmark by its name, or of one's own data.

    Raises:
        InputError: there is none of that name, or one's own data is not there.
    """
    if isinstance(data, str):
        return find_benchmark(data)
    return custom_benchmark(
        data.images, data.masks, data.classes, background=data.background, ignore=data.ignore, offset=data.offset
    )


def benchmark_settings(settings: Settings, benchmark: Benchmark) -> Settings:
    """A checkpoint's recommended settings, fit for a benchmark without background: no class is ever off, and
    nothing but a value of next to nothing is background.

    The published settings of VOC20 and Cityscapes do the same.
    """
    return settings.replace(score_threshold=0.0, background_threshold=1e-4) if 0 in benchmark.ignore else settings


def ablation_variants(
    settings: Settings, attentions: Sequence[str], features: Sequence[bool], refiners: Sequence[str | None]
) -> tuple[Variant, ...]:
    """Every attention with every feature fusion and every refiner.

    Raises:
        SettingsError: an unknown attention, or nothing to compare.
    """
    for name in attentions:
        if name not in ATTENTIONS:
            raise SettingsError(f"attention: expected some of {', '.join(ATTENTIONS)}, got {name!r}")
    made = tuple(
        Variant(
            f"{attention}, feature fusion {'on' if fuse else 'off'}, refiner {refiner or 'none'}",
            settings.replace(attention=attention, fuse_features=fuse),
            refiner,
        )
        for attention in attentions
        for fuse in features
        for refiner in refiners
    )
    if not made:
        raise InputError("expected at least one attention, feature fusion and refiner to compare, got none")
    return made


def _texts(prompts: Sequence[ClassPrompt]) -> list[list[str]]:
    return [[item.name, *item.prompts] for item in prompts]


def _device_type(name: str | None) -> str:
    from cliper.devices import resolve_device

    return resolve_device(name).type
