"""Ray: a cluster, or this machine alone; and how results and errors come back from its workers."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from cliper.errors import CliperError, MissingExtraError, ResourceError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["READING", "Cluster", "packed", "results", "unpacked"]

READING = 0.5
"""Share of a processor that reading pictures is taken to need beside the models."""


class Cluster:
    """A connection to Ray.

    Args:
        address: of a cluster; None starts Ray in here.

    Raises:
        MissingExtraError: Ray is not installed.
        ResourceError: there is no cluster at the address.
    """

    def __init__(self, address: str | None = None) -> None:
        try:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # lines of its own on standard error
            os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "4")  # of half a minute each: give up, not hang
            if address is None:  # Ray talks to itself over loopback then, whatever networks there are
                os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
            import ray
            import ray.data
        except ImportError:
            raise MissingExtraError("Ray is not installed; pip install 'cliper[scale]'") from None
        self._ray, self._here = ray, address is None
        try:
            if not ray.is_initialized():
                _knock(address)
                with _silent():
                    ray.init(
                        address=address,
                        log_to_driver=False,
                        logging_level=logging.ERROR,
                        include_dashboard=False if self._here else None,
                    )
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            if self._here:
                raise ResourceError(
                    f"expected Ray to start on this machine, it did not ({reason}); use --engine local, or see "
                    "what it says below /tmp/ray"
                ) from None
            raise ResourceError(
                f"expected a Ray cluster at {address!r}, got none ({reason}); check --address"
            ) from None
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what fails is raised, too

    def shares(self, workers: int | None, *, cpu_only: bool = False) -> tuple[int, dict[str, float]]:
        """How many models there are to be, and what each of them needs of a machine.

        Args:
            workers: models; None takes one for each GPU, or one for each machine without.
            cpu_only: whether GPUs are left alone.

        Returns:
            The number, and Ray's ``num_gpus`` or ``num_cpus``.
        """
        there = self._ray.cluster_resources()
        gpus, cpus = int(there.get("GPU", 0)), int(there.get("CPU", 1))
        if gpus and not cpu_only:
            count = workers or gpus
            return count, {"num_gpus": min(1.0, gpus / count)}
        count = workers or sum(1 for node in self._ray.nodes() if node["Alive"])
        # Something is left for reading, else the models would wait for ever. Ray takes whole numbers above 1.
        share = (cpus - READING) / count
        return count, {"num_cpus": float(int(share)) if share >= 1 else max(0.1, int(share * 10) / 10)}

    def threads(self, count: int) -> int:
        """PyTorch's threads for each of so many models."""
        import torch

        threads = max(1, int(self._ray.cluster_resources().get("CPU", 1)) // count)
        # In here as many as were asked for, by OMP_NUM_THREADS say.
        return min(threads, torch.get_num_threads()) if self._here else threads

    def close(self) -> None:
        """Disconnect; what was started in here ends."""
        self._ray.shutdown()


def packed(work: Callable[[], Iterable[Any]]) -> pa.Table:
    """What a worker's work gives, as a table of one column.

    An error of this package is a result too: Ray would hand it back as a text of its own, without the error.
    """
    import pyarrow as pa

    values: list[bytes] = []
    try:
        for value in work():
            values.append(pickle.dumps(value))
    except CliperError as error:
        values.append(pickle.dumps(type(error)(str(error))))
    except Exception as error:  # a defect, which is to end the run as one; not every exception can be pickled
        values.append(pickle.dumps(RuntimeError(f"{type(error).__name__} in a worker: {error}")))
    return pa.table({"value": pa.array(values, pa.large_binary())})


def unpacked(table: pa.Table) -> Iterator[Any]:
    """The values of such a table.

    Raises:
        CliperError: the worker's, in place of a value.
        RuntimeError: a defect in the worker, likewise.
    """
    for data in table.column("value").to_pylist():
        value = pickle.loads(data)
        if isinstance(value, CliperError | RuntimeError):
            raise value
        yield value


def results(dataset: Any) -> Iterator[Any]:
    """The values of a Ray Data set that was made by :func:`packed`, in whatever order they are done.

    Raises:
        CliperError: a worker's.
        ResourceError: Ray cannot go on: a worker died again and again, or the cluster is gone.
    """
    from ray.exceptions import RayError

    try:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield from unpacked(batch)
    except RayError as error:
        reason = " ".join(str(error).split())[:300]
        raise ResourceError(
            f"Ray could not go on; what was done is kept: start again, with fewer workers if memory ran out ({reason})"
        ) from error


def _knock(address: str | None) -> None:
    """Whether anybody is at HOST:PORT; Ray itself would try for minutes.

    Raises:
        OSError: nobody is.
    """
    host, colon, port = (address or "").rpartition("://")[2].partition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=20).close()


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
