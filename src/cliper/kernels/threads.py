"""Independent tasks in parallel on the CPU, one core per task."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from cliper.kernels.switch import use_cpu_kernels

__all__ = ["map_rows", "threaded_map"]

T = TypeVar("T")

_pools = threading.local()


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
    pool = _pool(threads)
    pending = [pool.submit(run, index) for index in range(count)]
    pending.reverse()
    try:
        while pending:
            yield pending.pop().result()  # popped, so that a result is freed once the caller drops it
    finally:
        for future in pending:
            future.cancel()


def map_rows(work: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[Tensor, ...]:
    """``work(*inputs)`` for work that computes each row independently: on the CPU each core takes a share of the rows.

    Cores synchronise only at the end of the call; see :func:`threaded_map`.

    Args:
        work: [r, K], ... -> [r, M], ..., each output row computed from the input rows of the same index.
        inputs: each [B, N, K].

    Returns:
        Each [B, N, M].
    """
    batch, tokens = inputs[0].shape[:2]
    rows, threads = batch * tokens, torch.get_num_threads()
    flat = [x.reshape(rows, -1) for x in inputs]
    if not use_cpu_kernels(inputs[0]) or threads <= 1 or rows < threads:
        return tuple(out.view(batch, tokens, -1) for out in work(*flat))
    outputs: list[Tensor] = []
    lock = threading.Lock()

    def share(index: int) -> None:
        part = slice(rows * index // threads, rows * (index + 1) // threads)
        results = work(*(x[part] for x in flat))
        with lock:
            if not outputs:  # widths are known once the first share is computed
                outputs.extend(result.new_empty((rows, *result.shape[1:])) for result in results)
        for out, result in zip(outputs, results, strict=True):
            out[part] = result

    for _ in threaded_map(share, threads):
        pass
    return tuple(out.view(batch, tokens, -1) for out in outputs)


def _pool(threads: int) -> ThreadPoolExecutor:
    """A pool of the calling thread: threads that segment images at once do not wait for each other's operations."""
    pools: dict[int, ThreadPoolExecutor] = vars(_pools).setdefault("by_count", {})
    if threads in pools:
        return pools[threads]
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
    pools[threads] = pool
    return pool
