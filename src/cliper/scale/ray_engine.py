"""Many machines, or this one: Ray Data reads pictures, actors that hold the model segment them and write the files.

Only records come back; the manifest is the caller's, as with the local engine. A worker that dies is started again by
Ray and does its pictures once more: their files are replaced by the same, and each picture has one record.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from cliper.errors import CliperError, InputError, MissingExtraError, ResourceError
from cliper.scale.items import Item
from cliper.scale.job import Job, Loaded, Worker, read_item
from cliper.scale.manifest import Record, parse_record
from cliper.scale.places import Place, is_remote
from cliper.scale.reading import groups_of_one_size
from cliper.scale.run import Run, sweep
from cliper.scale.sources import Source

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["RayEngine"]

# Pictures that travel together, and that a worker that dies does again.
_TOGETHER = 16

# Pictures that Ray is handed at once: enough to keep a cluster busy for long, few enough to be listed quickly.
_WINDOW = 50_000

# Share of a processor that reading a picture is taken to need beside the models.
_READING = 0.5


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
        self._here = address is None
        self._ray = _connected(address)
        self._workers, self._resources = self._shares(workers)

    def __call__(self, run: Run) -> None:
        """Do what is left.

        Raises:
            CliperError: what ends the run; pictures that were done until then stay done.
        """
        left = run.left()
        try:
            while window := [_anywhere(item) for item in islice(left, _WINDOW)]:
                for number, record in self._done(window, run.place):
                    run.add(number, record)
        finally:
            self._ray.shutdown()
            if run.place.local is not None:
                sweep(run.place.local)  # of workers that died while writing

    def _done(self, items: Sequence[Item], place: Place) -> Iterator[tuple[int, Record]]:
        import pyarrow as pa
        import ray.data
        import torch

        address = place.address if place.local is None else str(place.local.absolute())
        blocks = [_table(items[first : first + _TOGETHER]) for first in range(0, len(items), _TOGETHER)]
        threads = max(1, int(self._ray.cluster_resources().get("CPU", 1)) // self._workers)
        if self._here:
            threads = min(threads, torch.get_num_threads())  # as many as were asked for, by OMP_NUM_THREADS say
        records = (
            ray.data.from_arrow(blocks)
            .map_batches(_read, batch_format="pyarrow", batch_size=_TOGETHER, num_cpus=_READING)
            .map_batches(
                _Segmenting,
                fn_constructor_args=(self._job, address, threads),
                compute=ray.data.ActorPoolStrategy(size=self._workers),
                batch_format="pyarrow",
                batch_size=_TOGETHER,
                **self._resources,
            )
        )
        try:
            for batch in records.iter_batches(batch_size=None, batch_format="pyarrow"):
                assert isinstance(batch, pa.Table)
                for row in batch.to_pylist():
                    record = parse_record(row["record"])
                    assert record is not None
                    yield row["number"], record
        except Exception as error:
            raise _ours(error) from error

    def _shares(self, workers: int | None) -> tuple[int, dict[str, float]]:
        """How many models, and what each of them needs of a machine."""
        there = self._ray.cluster_resources()
        gpus, cpus = int(there.get("GPU", 0)), int(there.get("CPU", 1))
        if gpus and self._job.device != "cpu":
            count = workers or gpus
            return count, {"num_gpus": min(1.0, gpus / count)}
        count = workers or sum(1 for node in self._ray.nodes() if node["Alive"])
        # Something is left for reading, else the models would wait for ever.
        return count, {"num_cpus": max(0.1, (cpus - _READING) / count // 0.1 / 10)}


class _Segmenting:
    """The model in an actor."""

    def __init__(self, job: Job, address: str, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        segmenter = job.load()
        self._batch = segmenter.batch_size
        self._worker = Worker(job, segmenter, Place(address))

    def __call__(self, table: pa.Table) -> pa.Table:
        import pyarrow as pa

        loaded = [_unpacked(row) for row in table.to_pylist()]
        records = [
            (one.item.number, Record.failed(one.item.name, one.error, round(one.seconds, 4)))
            for one in loaded
            if one.error is not None
        ]
        readable = [one for one in loaded if one.error is None]
        with ThreadPoolExecutor(2) as pool:
            written = []
            for group in groups_of_one_size(readable, self._batch):
                for one, result, seconds in self._worker.segment(group):
                    spent = one.seconds + seconds
                    if isinstance(result, str):
                        records.append((one.item.number, Record.failed(one.item.name, result, round(spent, 4))))
                    else:
                        task = pool.submit(self._worker.write, one.item, result, spent)
                        written.append((one.item.number, task))
            records += [(number, task.result()) for number, task in written]
        return pa.table(
            {
                "number": pa.array([number for number, _ in records], pa.int64()),
                "record": pa.array([record.line() for _, record in records], pa.binary()),
            }
        )


def _read(table: pa.Table) -> pa.Table:
    """Items to pictures."""
    import pyarrow as pa

    loaded = [read_item(pickle.loads(data)) for data in table.column("item").to_pylist()]
    return pa.table({"loaded": pa.array([pickle.dumps(one) for one in loaded], pa.large_binary())})


def _unpacked(row: dict[str, bytes]) -> Loaded:
    loaded: Loaded = pickle.loads(row["loaded"])
    return loaded


def _table(items: Sequence[Item]) -> pa.Table:
    import pyarrow as pa

    # Pickled, because a file's name need not be text.
    return pa.table({"item": pa.array([pickle.dumps(item) for item in items], pa.binary())})


def _anywhere(item: Item) -> Item:
    """An item that does not depend on the folder in which a worker runs."""
    return item if is_remote(item.address) else replace(item, address=os.path.abspath(item.address))  # noqa: PTH100


def _connected(address: str | None) -> Any:
    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # lines of its own on standard error
        import ray
        import ray.data
    except ImportError:
        raise MissingExtraError("--engine ray needs Ray, which is not installed; pip install 'cliper[scale]'") from None
    try:
        if not ray.is_initialized():
            with _silent():
                ray.init(
                    address=address,
                    include_dashboard=None if address else False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ResourceError(f"expected a Ray cluster at {address!r}, got none ({reason}); check --address") from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Ray's own threads say on standard error how loud they have been told to be; what fails is raised anyway."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - no path of anybody's
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _ours(error: BaseException) -> BaseException:
    """The error of this package that Ray has wrapped, or one that says what Ray said."""
    seen: BaseException | None = error
    while seen is not None:
        for one in (seen, getattr(seen, "cause", None)):
            if isinstance(one, CliperError):
                return type(one)(str(one)) if type(one).__module__ == CliperError.__module__ else _plain(one)
        seen = seen.__cause__ or seen.__context__
    return error


def _plain(error: BaseException) -> CliperError:
    """Ray raises classes of its own making that are ours too."""
    for kind in type(error).__mro__:
        if kind.__module__ == CliperError.__module__ and issubclass(kind, CliperError):
            cause = getattr(error, "cause", error)
            return kind(str(cause))
    return CliperError(str(error))
