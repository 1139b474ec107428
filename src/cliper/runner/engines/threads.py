"""One process: threads read images, others run the model, others record the results."""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cliper.decode_pool import DecodePool
from cliper.errors import CliperError, ImageError, ResourceError
from cliper.runner.manifest import Record
from cliper.runner.prefetch import group_by_size, read_ahead
from cliper.runner.run import EngineStats, Run
from cliper.runner.storage import Storage
from cliper.runner.task import Task

__all__ = ["portable_error", "process_items", "threads_engine"]


@contextlib.contextmanager
def threads_engine(task: Task, *, threads: int) -> Iterator[Callable[[Run], EngineStats]]:
    """Load the model in this process; ``threads`` read, as many record, and as many processes decode."""
    with DecodePool(threads, handler=task.decoder) as decoder, task.load() as model:
        yield lambda run: process_items(
            task, model, decoder, run.pending(), run.run_dir.storage, run.add, threads=threads
        )


def portable_error(error: Exception) -> Exception:
    """An error that can be sent to another process. An exception that is a defect may not be picklable."""
    if isinstance(error, CliperError):
        return type(error)(str(error))
    return RuntimeError(f"{type(error).__name__} in a worker: {error}")


@dataclass(frozen=True)
class _Loaded:
    """An image that was read, or why it could not be."""

    item: Any
    size: Any = None
    image: Any = None
    error: CliperError | None = None
    seconds: float = 0.0


def process_items(
    task: Task,
    model: Any,
    decoder: DecodePool,
    items: Iterable[Any],
    storage: Storage,
    add: Callable[[int, Record], None],
    *,
    threads: int,
) -> EngineStats:
    """Process items; few of them are in memory at a time: those being read, a few groups, and those being recorded.

    ``threads`` threads read, and as many record and call ``add`` with an item's number and record. The processors are
    divided among the threads that run the model. An exception that ends the run is raised once the images that were
    being recorded are added.
    """
    import torch

    from cliper.devices import peak_memory, use_one_core

    cores, (batch, concurrency) = torch.get_num_threads(), task.limits(model)
    seconds, started = [], time.perf_counter()

    def discard(loaded: _Loaded) -> None:
        for name in task.outputs(loaded.item.name):
            with contextlib.suppress(CliperError):
                storage.remove(name)

    def fail(loaded: _Loaded, error: CliperError, spent: float) -> None:
        discard(loaded)
        add(loaded.item.number, Record.failed(loaded.item.name, error, spent))

    def read(item: Any) -> _Loaded:
        use_one_core()
        started = time.perf_counter()
        try:
            size, image = task.read(model, item, decoder)
        except (ImageError, ResourceError) as error:
            return _Loaded(item, error=error, seconds=time.perf_counter() - started)
        return _Loaded(item, size, image, seconds=time.perf_counter() - started)

    def record(loaded: _Loaded, result: Any, spent: float) -> None:
        use_one_core()
        started = time.perf_counter()
        try:
            done = task.record(loaded.item, result, storage)
        except CliperError as error:
            if storage.is_fatal(error):
                discard(loaded)
                raise
            fail(loaded, error, spent + time.perf_counter() - started)
        else:
            add(loaded.item.number, replace(done, seconds=round(spent + time.perf_counter() - started, 4)))

    def readable(images: Iterable[_Loaded]) -> Iterator[_Loaded]:
        for loaded in images:
            if loaded.error is None:
                yield loaded
            else:
                fail(loaded, loaded.error, loaded.seconds)

    def process(group: Sequence[_Loaded]) -> None:
        torch.set_num_threads(max(1, cores // concurrency))
        started = time.perf_counter()
        results = _process(task, model, group)
        seconds.append(time.perf_counter() - started)
        for loaded, result, spent in results:
            if isinstance(result, CliperError):
                fail(loaded, result, loaded.seconds + spent)
            else:
                recorders.submit(functools.partial(record, loaded, result, loaded.seconds + spent))

    reading = read_ahead(items, read, threads=threads, ahead=threads + batch * concurrency)
    # A model that uses all cores stays in this thread: libgomp waits without spinning once a second thread uses them.
    models = _DaemonThreads("model", concurrency if concurrency > 1 else 0, max_waiting=0)
    recorders = _DaemonThreads("write", threads, max_waiting=threads + batch * concurrency)
    try:
        for group in group_by_size(readable(reading), batch, lambda loaded: loaded.size):
            models.submit(functools.partial(process, group))
        models.finish()
        recorders.finish()
    except BaseException:
        models.finish(cancel=True)
        recorders.finish(cancel=True)
        raise
    finally:
        reading.close()
        torch.set_num_threads(cores)
    waited = concurrency * (time.perf_counter() - started) - sum(seconds)
    return EngineStats(sum(seconds), waited, peak_memory())


def _process(task: Task, model: Any, group: Sequence[_Loaded]) -> list[tuple[_Loaded, Any, float]]:
    """Each image with its result, or the error that fails it, and its share of the seconds."""
    started = time.perf_counter()
    try:
        results = task.process(model, [loaded.image for loaded in group])
    except (ImageError, ResourceError) as error:
        if len(group) > 1:  # one of them is at fault, or all together are too many
            return [done for loaded in group for done in _process(task, model, [loaded])]
        return [(group[0], error, time.perf_counter() - started)]
    share = (time.perf_counter() - started) / len(group)
    return [(loaded, result, share) for loaded, result in zip(group, results, strict=True)]


class _DaemonThreads:
    """Threads that a program which ends does not wait for, unlike those of a ThreadPoolExecutor.

    So the second Ctrl-C, which interrupts :meth:`finish`, ends the program at once. An error of the work is raised by
    the next call; with ``cancel``, only work in progress is waited for. Without threads the caller does the work.
    """

    def __init__(self, name: str, count: int, *, max_waiting: int) -> None:
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._slots = threading.Semaphore(count + max_waiting)
        self._cancelled = False
        self._error: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._work, name=f"cliper-{name}-{n}", daemon=True) for n in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Callable[[], None]) -> None:
        if not self._threads:
            work()
            return
        self._slots.acquire()
        if self._error is not None:
            raise self._error
        self._queue.put(work)

    def finish(self, *, cancel: bool = False) -> None:
        self._cancelled = cancel
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        if self._error is not None and not cancel:
            raise self._error

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            if self._error is None and not self._cancelled:
                try:
                    work()
                except BaseException as error:
                    self._error = self._error or error
            self._slots.release()
