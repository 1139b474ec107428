"""Many machines, or this one: Ray Data reads pictures, actors that hold the model segment them and write the files.

Only records come back; the manifest is the caller's, as with the local engine. A worker that dies is started again by
Ray and does its pictures once more: their files are replaced by the same, and each picture has one record.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from cliper.errors import InputError
from cliper.grouping import groups_of_one_size
from cliper.scale.cluster import READING, Cluster, packed, results, unpacked
from cliper.scale.folder import sweep
from cliper.scale.items import Item
from cliper.scale.job import Job, Loaded, Worker, read_item
from cliper.scale.manifest import Record
from cliper.scale.places import Place, is_remote
from cliper.scale.run import Run
from cliper.scale.sources import Source

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["RayEngine"]

# Pictures that travel together, and that a worker that dies does again.
_TOGETHER = 16

# Pictures that Ray is handed at once: enough to keep a cluster busy for long, few enough to be listed quickly.
_WINDOW = 50_000


class RayEngine:
    """Does what is left of a run with Ray.

    Args:
        job: what is done with each picture.
        source: whose pictures; one that can be read at any place.
        workers: models; None takes one for each GPU, or one for each machine without.
        address: of a cluster; None starts Ray in here.

    Raises:
        MissingExtraError: Ray is not installed.
        InputError: a source that can only be read from its begin.
        ResourceError: there is no cluster at the address.
    """

    def __init__(self, job: Job, source: Source, *, workers: int | None = None, address: str | None = None) -> None:
        if source.held:
            raise InputError(
                f"--engine ray: a {'video' if source.kind == 'video' else 'compressed tar'} can only be read from its "
                "begin; use --engine local, or unpack it first"
            )
        self._job = job
        self._cluster = Cluster(address)
        self._workers, self._resources = self._cluster.shares(workers, cpu_only=job.device == "cpu")

    def __call__(self, run: Run) -> None:
        """Do what is left.

        Raises:
            CliperError: what ends the run; pictures that were done until then stay done.
        """
        try:
            # Actors are made anew for each window, and load the model anew: seconds, of the hours that so many
            # pictures take.
            for left in run.rounds():
                for window in _windows(left):
                    for number, record in self._done(window, run.place):
                        run.add(number, record)
        finally:
            self._cluster.close()
            if run.place.local is not None:
                sweep(run.place.local)  # of workers that died while writing

    def _done(self, items: Sequence[Item], place: Place) -> Iterator[tuple[int, Record]]:
        import ray.data

        address = place.address if place.local is None else str(place.local.absolute())
        blocks = [packed(partial(iter, items[first : first + _TOGETHER])) for first in range(0, len(items), _TOGETHER)]
        records = (
            ray.data.from_arrow(blocks)
            .map_batches(_read, batch_format="pyarrow", batch_size=_TOGETHER, num_cpus=READING)
            .map_batches(
                _Segmenting,
                fn_constructor_args=(self._job, address, self._cluster.threads(self._workers)),
                compute=ray.data.ActorPoolStrategy(size=self._workers),
                batch_format="pyarrow",
                batch_size=_TOGETHER,
                **self._resources,
            )
        )
        yield from results(records)


class _Segmenting:
    """The model in an actor."""

    def __init__(self, job: Job, address: str, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._job, self._address = job, address
        self._worker: Worker | None = None

    def __call__(self, table: pa.Table) -> pa.Table:
        return packed(lambda: self._records(list(unpacked(table))))

    def _records(self, loaded: Sequence[Loaded]) -> list[tuple[int, Record]]:
        worker = self._model()
        records = [
            (one.item.number, Record.failed(one.item.name, one.error, round(one.seconds, 4)))
            for one in loaded
            if one.error is not None
        ]
        readable = [one for one in loaded if one.error is None]
        with ThreadPoolExecutor(2) as pool:
            written = []
            for group in groups_of_one_size(readable, worker.batch_size, lambda one: one.size):
                for one, result, seconds in worker.segment(group):
                    spent = one.seconds + seconds
                    if isinstance(result, str):
                        records.append((one.item.number, Record.failed(one.item.name, result, round(spent, 4))))
                    else:
                        task = pool.submit(worker.write, one.item, result, spent)
                        written.append((one.item.number, task))
            records += [(number, task.result()) for number, task in written]
        return records

    def _model(self) -> Worker:
        """Loaded with the first pictures, where its error can be handed back."""
        if self._worker is None:
            self._worker = Worker(self._job, self._job.load(), Place(self._address))
        return self._worker


def _read(table: pa.Table) -> pa.Table:
    """Items to pictures."""
    return packed(lambda: map(read_item, unpacked(table)))


def _windows(left: Iterator[Item]) -> Iterator[list[Item]]:
    """Items, as many as Ray is handed at once.

    Raises:
        InputError: the source ends in the middle; what came before has been given.
    """
    while True:
        window: list[Item] = []
        try:
            window.extend(map(_anywhere, islice(left, _WINDOW)))
        except InputError:
            if window:
                yield window
            raise
        if not window:
            return
        yield window


def _anywhere(item: Item) -> Item:
    """An item that does not depend on the folder in which a worker runs."""
    return item if is_remote(item.address) else replace(item, address=os.path.abspath(item.address))  # noqa: PTH100
