"""An evaluation by Ray, on many machines or in here: actors that hold the model count pictures, records come back.

The caller keeps the records, as with its own processes. A picture that a dying worker had begun is done again, and
counts once.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliper.benchmarks import Sample
from cliper.evaluation.job import CustomData, Job
from cliper.evaluation.records import Record
from cliper.evaluation.runner import Timing, evaluate_samples
from cliper.scale.cluster import Cluster, our_error

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
        import pyarrow as pa
        import ray.data

        count, resources = self._cluster.shares(self._workers, cpu_only=job.device == "cpu")
        blocks = [
            pa.table({"sample": pa.array([pickle.dumps(s) for s in samples[i : i + _TOGETHER]], pa.binary())})
            for i in range(0, len(samples), _TOGETHER)
        ]
        done = ray.data.from_arrow(blocks).map_batches(
            _Evaluating,
            fn_constructor_args=(job, self._cluster.threads(count)),
            compute=ray.data.ActorPoolStrategy(size=count),
            batch_format="pyarrow",
            batch_size=_TOGETHER,
            **resources,
        )
        try:
            for batch in done.iter_batches(batch_size=None, batch_format="pyarrow"):
                for data in batch.column("record").to_pylist():
                    yield pickle.loads(data)
        except Exception as error:
            raise our_error(error) from error


class _Evaluating:
    """The models in an actor."""

    def __init__(self, job: Job, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._job = job
        self._benchmark = job.benchmark()
        self._segmenters = job.load()

    def __call__(self, table: pa.Table) -> pa.Table:
        import pyarrow as pa

        job = self._job
        records: list[Record] = []
        samples = [pickle.loads(data) for data in table.column("sample").to_pylist()]
        timing = evaluate_samples(
            self._benchmark,
            samples,
            self._segmenters,
            records.append,
            decoders=job.decoders,
            skip_errors=job.skip_errors,
        )
        share = Timing(timing.model / len(samples), timing.waiting / len(samples))
        return pa.table({"record": pa.array([pickle.dumps((record, share)) for record in records], pa.binary())})


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
