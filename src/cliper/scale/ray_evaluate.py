"""An evaluation by Ray, on many machines or in here: actors that hold the model count pictures, records come back.

The caller keeps the records, as with its own processes. A picture that a dying worker had begun is done again, and
counts once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliper.datasets import Benchmark, Sample
from cliper.evaluation.job import CustomData, Job
from cliper.evaluation.records import Record
from cliper.evaluation.runner import Timing, evaluate_samples
from cliper.scale.cluster import Cluster, packed, results, unpacked

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["RayEvaluation"]

# Pictures that travel together, and that a worker that dies does again.
_TOGETHER = 8


class RayEvaluation:
    """Evaluates pictures with Ray; what :func:`cliper.evaluation.workers.evaluate` takes as ``spread``.

    Args:
        workers: models; None takes one for each GPU, or one for each machine without.
        address: of a cluster, whose machines all see the data at the same path; None starts Ray in here.

    Raises:
        MissingExtraError: Ray is not installed.
        ResourceError: there is no cluster at the address.
    """

    def __init__(self, *, workers: int | None = None, address: str | None = None) -> None:
        self._cluster = Cluster(address)
        self._workers = workers

    def __call__(self, job: Job, samples: Sequence[Sample], emit: Callable[[Record], None]) -> Timing:
        """Evaluate samples.

        Raises:
            CliperError: what ends the run.
        """
        timing = Timing()
        try:
            for record, spent in self._done(_absolute(job), [_anywhere(sample) for sample in samples]):
                emit(record)
                timing += spent
        finally:
            self._cluster.close()
        return timing

    def _done(self, job: Job, samples: Sequence[Sample]) -> Iterator[tuple[Record, Timing]]:
        import ray.data

        count, resources = self._cluster.shares(self._workers, cpu_only=job.device == "cpu")
        blocks = [packed(partial(iter, samples[i : i + _TOGETHER])) for i in range(0, len(samples), _TOGETHER)]
        done = ray.data.from_arrow(blocks).map_batches(
            _Evaluating,
            fn_constructor_args=(job, self._cluster.threads(count)),
            compute=ray.data.ActorPoolStrategy(size=count),
            batch_format="pyarrow",
            batch_size=_TOGETHER,
            **resources,
        )
        yield from results(done)


class _Evaluating:
    """The models in an actor."""

    def __init__(self, job: Job, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._job = job
        self._models: tuple[Benchmark, Any] | None = None

    def __call__(self, table: pa.Table) -> pa.Table:
        return packed(lambda: self._records(list(unpacked(table))))

    def _records(self, samples: Sequence[Sample]) -> list[tuple[Record, Timing]]:
        job = self._job
        if self._models is None:  # with the first pictures, where an error can be handed back
            self._models = job.benchmark(), job.load()
        benchmark, segmenters = self._models
        records: list[Record] = []
        with job.float32_precision():
            timing = evaluate_samples(
                benchmark, samples, segmenters, records.append, decoders=job.decoders, skip_errors=job.skip_errors
            )
        share = Timing(timing.model / len(samples), timing.waiting / len(samples))
        return [(record, share) for record in records]


def _anywhere(sample: Sample) -> Sample:
    """A sample that does not depend on the folder in which a worker runs."""
    return replace(sample, image=sample.image.absolute(), mask=sample.mask.absolute())


def _absolute(job: Job) -> Job:
    """Likewise a job: its data, and a model that is a folder."""
    changes: dict[str, Any] = {}
    if isinstance(job.data, CustomData):
        changes["data"] = replace(job.data, images=job.data.images.absolute(), masks=job.data.masks.absolute())
    if Path(job.model).expanduser().is_dir():
        changes["model"] = str(Path(job.model).expanduser().absolute())
    return replace(job, **changes)
