"""The loop of an evaluation: read, segment, count, one record a picture."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cliper.datasets import Benchmark, Sample
from cliper.errors import ImageError, ResourceError
from cliper.evaluation.confusion import ConfusionMatrix
from cliper.evaluation.loading import Loaded, load_ahead
from cliper.evaluation.records import Record, files_state

if TYPE_CHECKING:
    import numpy.typing as npt

    from cliper.segmenter import Segmenter

__all__ = ["Timing", "evaluate_samples", "segment_loaded"]


@dataclass(frozen=True)
class Timing:
    """Where the time of a run went, in seconds.

    Args:
        model: segmenting and counting.
        waiting: for pictures; the model was idle.
    """

    model: float = 0.0
    waiting: float = 0.0

    def __add__(self, other: Timing) -> Timing:
        return Timing(self.model + other.model, self.waiting + other.waiting)

    @property
    def idle_share(self) -> float:
        """Share of the time in which the model waited, from 0 to 1."""
        total = self.model + self.waiting
        return self.waiting / total if total else 0.0


def evaluate_samples(
    benchmark: Benchmark,
    samples: Sequence[Sample],
    segmenters: Mapping[str, Segmenter],
    emit: Callable[[Record], None],
    *,
    decoders: int = 2,
    skip_errors: bool = False,
) -> Timing:
    """Segment samples in every way and count each.

    Args:
        benchmark: what the samples belong to.
        samples: which.
        segmenters: by variant.
        emit: is given each picture's record as soon as it is there.
        decoders: threads that read ahead.
        skip_errors: whether a picture that cannot be used becomes a record with its error, or ends the run.

    Raises:
        ImageError: a picture that cannot be used, unless ``skip_errors``.
        ResourceError: memory ran out on one, unless ``skip_errors``.
    """
    batch = next(iter(segmenters.values())).batch_size
    timing = Timing()
    groups = load_ahead(benchmark, samples, batch=batch, threads=decoders)
    while True:
        started = time.perf_counter()
        group = next(groups, None)
        loaded = time.perf_counter()
        if group is None:
            return timing
        for record in _count(benchmark, group, segmenters, skip_errors):
            emit(record)
        timing += Timing(time.perf_counter() - loaded, loaded - started)


def segment_loaded(benchmark: Benchmark, segmenter: Segmenter, group: Sequence[Loaded]) -> list[npt.NDArray[Any]]:
    """The label map [H, W] of each sample of a group. A column is cut out after the whole image was resized."""
    background = list(benchmark.texts.background) or None
    pixels = [segmenter.preprocess(item.whole, item.sample.column) for item in group if item.whole is not None]
    images = [item.picture for item in group if item.picture is not None]
    results = segmenter.segment_preprocessed(images, pixels, list(benchmark.texts.classes), background)
    return [result.labels for result in results]


def _count(
    benchmark: Benchmark, group: Sequence[Loaded], segmenters: Mapping[str, Segmenter], skip_errors: bool
) -> list[Record]:
    if group[0].error is not None:
        if not skip_errors:
            raise ImageError(group[0].error)
        return [_skipped(group[0], group[0].error)]
    started = time.perf_counter()
    try:
        labels = {name: segment_loaded(benchmark, segmenter, group) for name, segmenter in segmenters.items()}
    except (ImageError, ResourceError) as error:
        if len(group) > 1:  # one of them is at fault, or all together are too many
            return [r for item in group for r in _count(benchmark, [item], segmenters, skip_errors)]
        words = f"{group[0].sample.name}: {' '.join(str(error).split())}"
        if not skip_errors:
            raise type(error)(words) from None
        return [_skipped(group[0], words)]
    seconds = (time.perf_counter() - started) / len(group)
    records = []
    for index, item in enumerate(group):
        matrices = {}
        for name, maps in labels.items():
            matrices[name] = ConfusionMatrix(benchmark.num_labels, benchmark.ignore)
            matrices[name].update(item.labels, maps[index])
        state = files_state(item.sample.image, item.sample.mask)
        records.append(Record.of(item.sample.name, matrices, round(seconds, 4), state))
    return records


def _skipped(item: Loaded, error: str) -> Record:
    return Record(item.sample.name, {}, error=error, files=files_state(item.sample.image, item.sample.mask))
