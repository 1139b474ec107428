"""Many machines, or this one, by Ray: actors that hold the model process images, and only records come back.

The manifest is the caller's, as with the other engines. Ray starts an actor that died again, with the images that it
had: their files are replaced by the same, and each image has one record.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from cliper.decode_pool import DecodePool
from cliper.errors import MissingExtraError, ResourceError, short_reason
from cliper.runner.engines.threads import portable_error, process_items
from cliper.runner.manifest import Record
from cliper.runner.run import EngineStats, Run
from cliper.runner.run_dir import remove_temporary_files
from cliper.runner.storage import Storage
from cliper.runner.task import Task

__all__ = ["ray_engine"]

_BLOCK = 16  # images that travel together, and that an actor that died processes again
_BLOCKS_AHEAD = 2  # for each actor
_READER_CPUS = 0.5  # share of a processor that is left beside the models


@contextlib.contextmanager
def ray_engine(
    task: Task, *, workers: int | None, threads: int, address: str | None, cpu_only: bool
) -> Iterator[Callable[[Run], EngineStats]]:
    """Connect to a Ray cluster, or start Ray on this machine without an address.

    Without a number of ``workers`` there is one model for each GPU, or for each machine without.

    Raises MissingExtraError if Ray is not installed, ResourceError if there is no cluster at the address.
    """
    import torch

    ray = _connect(address)
    try:
        count, resources = _allocate(ray, workers, cpu_only=cpu_only)
        torch_threads = max(1, int(ray.cluster_resources().get("CPU", 1)) // count)
        if address is None:  # on this machine as many as were asked for, by OMP_NUM_THREADS say
            torch_threads = min(torch_threads, torch.get_num_threads())
        actor = ray.remote(max_restarts=-1, max_task_retries=-1, **resources)(_Worker)

        def process(run: Run) -> EngineStats:
            local = run.run_dir.storage.local
            uri = run.run_dir.storage.uri if local is None else str(local.absolute())
            actors = [actor.remote(task, uri, threads, torch_threads) for _ in range(count)]
            try:
                return _distribute(ray, actors, run)
            finally:
                for one in actors:
                    ray.kill(one)
                if local is not None:
                    remove_temporary_files(local)  # of actors that died while they wrote

        yield process
    finally:
        ray.shutdown()


class _Worker:
    """The model in an actor."""

    def __init__(self, task: Task, uri: str, threads: int, torch_threads: int) -> None:
        import torch

        torch.set_num_threads(torch_threads)
        self._task, self._storage, self._threads = task, Storage(uri), threads
        self._stack = contextlib.ExitStack()
        self._loaded: Any = None

    def process(self, items: Sequence[Any]) -> tuple[list[tuple[int, Record]], EngineStats | Exception]:
        """Records of the items; an error of this package comes back as a value: Ray would wrap it."""
        records: list[tuple[int, Record]] = []
        try:
            if self._loaded is None:  # with the first images, where an error can be handed back
                decoder = DecodePool(self._threads, handler=self._task.decoder)
                self._loaded = self._stack.enter_context(self._task.load()), decoder
            model, decoder = self._loaded
            add = lambda *record: records.append(record)  # noqa: E731
            stats = process_items(self._task, model, decoder, items, self._storage, add, threads=self._threads)
        except Exception as error:
            return records, portable_error(error)
        return records, stats


def _distribute(ray: Any, actors: Sequence[Any], run: Run) -> EngineStats:
    from ray.util import ActorPool

    stats, pending = EngineStats(), run.pending()
    pool = ActorPool([*actors] * _BLOCKS_AHEAD)
    try:
        while True:
            while pool.has_free() and (block := list(islice(pending, _BLOCK))):
                pool.submit(lambda actor, items: actor.process.remote(items), block)
            if not pool.has_next():
                return stats
            records, result = pool.get_next_unordered()
            for number, record in records:
                run.add(number, record)
            if isinstance(result, Exception):
                raise result
            stats += result
    except ray.exceptions.RayError as error:
        raise ResourceError(
            "Ray could not go on; finished images are kept: start again, with fewer workers if memory ran out "
            f"({short_reason(error)})"
        ) from error


def _connect(address: str | None) -> Any:
    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "4")  # of half a minute each
        if address is None:  # Ray then talks to itself over loopback, whatever networks there are
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        import ray
        import ray.exceptions
    except ImportError:
        raise MissingExtraError("Ray is not installed; pip install 'cliper[scale]'") from None
    try:
        host, colon, port = (address or "").rpartition("://")[2].partition(":")
        if colon and port.isdigit():  # Ray would try for minutes if nothing listens there
            socket.create_connection((host, int(port)), timeout=20).close()
        dashboard = False if address is None else None
        with _suppress_stderr():
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=dashboard)
    except Exception as error:
        expected, advice = f"a Ray cluster at {address!r}", "check --address"
        if address is None:
            expected, advice = "Ray to start on this machine", "use --engine local, or see its logs below /tmp/ray"
        raise ResourceError(f"expected {expected}, got none ({short_reason(error)}); {advice}") from None
    return ray


def _allocate(ray: Any, workers: int | None, *, cpu_only: bool) -> tuple[int, dict[str, float]]:
    """The number of models, and Ray's ``num_gpus`` or ``num_cpus`` of each."""
    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
    if gpus and not cpu_only:
        count = workers or gpus
        return count, {"num_gpus": min(1.0, gpus / count)}
    count = workers or sum(1 for node in ray.nodes() if node["Alive"])
    share = (cpus - _READER_CPUS) / count  # Ray takes whole numbers above 1
    return count, {"num_cpus": float(int(share)) if share >= 1 else max(0.1, int(share * 10) / 10)}


@contextlib.contextmanager
def _suppress_stderr() -> Iterator[None]:
    """Silence Ray's startup messages; what fails is raised as well."""
    saved = os.dup(2)
    with open(os.devnull, "wb") as devnull:  # noqa: PTH123
        os.dup2(devnull.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
