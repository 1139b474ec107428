"""Independent tasks in parallel on the CPU, one core per task."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

__all__ = ["threaded_map"]

T = TypeVar("T")


def threaded_map(work: Callable[[int], T], count: int) -> Iterator[T]:
    """``work(0)`` to ``work(count - 1)``, computed in parallel, yielded in order.

    PyTorch splits each operation over the cores and synchronises them after each. For many short operations the
    synchronisation costs more than the split gains, and far more on a busy machine, where each wait may last a time
    slice of the scheduler. Here one core runs all operations of a task; PyTorch releases Python's global lock within
    its operations, so threads run in parallel.

    ``work`` must not depend on gradients; it runs in inference mode.
    """
    threads = min(torch.get_num_threads(), count)

    def run(index: int) -> T:
        with torch.inference_mode():
            return work(index)

    if threads <= 1:
        yield from map(run, range(count))
        return
    pending = [_pool(threads).submit(run, index) for index in range(count)]
    pending.reverse()
    try:
        while pending:
            yield pending.pop().result()  # popped, so that a result is freed once the caller drops it
    finally:
        for future in pending:
            future.cancel()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    num_threads = torch.get_num_threads()
    ready = threading.Barrier(threads + 1)

    def use_one_core() -> None:
        torch.get_num_threads()  # a thread's first read of the number overwrites what was set before
        torch.set_num_threads(1)  # of this thread; threads created later inherit it too, hence the reset below
        ready.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="cliper-kernels")
    for _ in range(threads):
        pool.submit(use_one_core)
    ready.wait()
    torch.set_num_threads(num_threads)
    return pool
