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
from dataclasses import replace
from itertools import islice
from typing import Any

from cliper.errors import CliperError, InputError, MissingExtraError, ResourceError, short_reason
from cliper.runner.engines.threads import open_decoder, process_items
from cliper.runner.items import ImageItem, Source
from cliper.runner.manifest import Record
from cliper.runner.run import EngineStats, Run
from cliper.runner.run_dir import remove_temporary_files
from cliper.runner.storage import Storage, is_remote
from cliper.runner.task import Task

__all__ = ["check_ray_source", "ray_engine"]

_BLOCK = 16  # images that travel together, and that an actor that died processes again
_BLOCKS_AHEAD = 2  # for each actor
_READER_CPUS = 0.5  # share of a processor that is left beside the models


def check_ray_source(source: Source) -> None:
    """Raise InputError for a source that only one machine can read: a video or a compressed tar."""
    if source.is_sequential:
        raise InputError(
            f"--engine ray: a {'video' if source.kind == 'video' else 'compressed tar'} can only be read from its "
            "beginning; use --engine local, or unpack it first"
        )


@contextlib.contextmanager
def ray_engine(
    task: Task, *, workers: int | None, threads: int, address: str | None, cpu_only: bool
) -> Iterator[Callable[[Run], EngineStats]]:
    """Connect to a Ray cluster, or start Ray on this machine without an address.

    Args:
        workers: number of models; None takes one for each GPU, or one for each machine without.
        threads: that read in each actor, and as many that record.
        cpu_only: whether GPUs are left alone.

    Raises:
        MissingExtraError: Ray is not installed.
        ResourceError: there is no cluster at the address.
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
            local = run.storage.local
            uri = run.storage.uri if local is None else str(local.absolute())
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
        self._model: Any = None

    def process(self, items: Sequence[Any]) -> tuple[list[tuple[int, Record]], EngineStats | Exception]:
        """Records of the items; an error of this package comes back as a value: Ray would wrap it."""
        records: list[tuple[int, Record]] = []
        try:
            if self._model is None:  # with the first images, where an error can be handed back
                self._decoder = self._stack.enter_context(open_decoder(self._task, self._threads))
                self._model = self._stack.enter_context(self._task.load())
            stats = process_items(
                self._task,
                self._model,
                self._decoder,
                items,
                self._storage,
                lambda number, record: records.append((number, record)),
                threads=self._threads,
            )
        except CliperError as error:
            return records, type(error)(str(error))
        except Exception as error:  # a defect; not every exception can be pickled
            return records, RuntimeError(f"{type(error).__name__} in a worker: {error}")
        return records, stats


def _distribute(ray: Any, actors: Sequence[Any], run: Run) -> EngineStats:
    stats, pending = EngineStats(), run.pending()
    at_work: dict[Any, Any] = {}  # by reference of a result, its actor
    failure: InputError | None = None
    idle = [actor for _ in range(_BLOCKS_AHEAD) for actor in actors]
    try:
        while True:
            while idle:
                block: list[Any] = []
                try:
                    block.extend(map(_absolute, islice(pending, _BLOCK)))
                except InputError as error:  # the source ends in the middle: what came before is processed
                    failure, pending = error, iter(())
                if not block:
                    break
                actor = idle.pop()
                at_work[actor.process.remote(block)] = actor
            if not at_work:
                break
            (reference, *_), _ = ray.wait(list(at_work), num_returns=1)
            idle.append(at_work.pop(reference))
            records, result = ray.get(reference)
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
    if failure is not None:
        raise failure
    return stats


def _absolute(item: Any) -> Any:
    """An item that does not depend on the folder in which an actor runs."""
    if not isinstance(item, ImageItem) or is_remote(item.uri):
        return item
    return replace(item, uri=os.path.abspath(item.uri))  # noqa: PTH100


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
        if not ray.is_initialized():
            _check_reachable(address)
            with _suppress_stderr():
                ray.init(
                    address=address,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    include_dashboard=False if address is None else None,
                )
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


def _check_reachable(address: str | None) -> None:
    """Raise OSError at once if nothing listens at HOST:PORT; Ray itself would try for minutes."""
    host, colon, port = (address or "").rpartition("://")[2].partition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=20).close()


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
