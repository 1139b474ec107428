"""Independent pieces of work side by side on the CPU, each on one core."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["by_rows", "head_by_head", "in_worker", "ordered_map"]

T = TypeVar("T")

_here = threading.local()


def head_by_head(x: Tensor) -> bool:
    """Whether attention heads are better done one at a time than all at once.

    On the CPU a core does one head at a time, whose map stays in its cache; elsewhere all heads at once keep the
    device busy.
    """
    return x.device.type == "cpu"


def ordered_map(work: Callable[[int], T], count: int) -> Iterator[T]:
    """``work(0)`` to ``work(count - 1)``, done side by side, given in order.

    PyTorch splits each operation over the cores and waits for all of them after each. For many short
    operations the waiting costs more than it gains, and on a busy machine very much more (each wait may last
    a time slice of the scheduler). Here a core takes a piece of work and does all its operations itself;
    PyTorch gives up Python's lock within its operations, so threads do.

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
            yield pending.pop().result()  # popped, so that a result is not held once it is given
    finally:
        for left in pending:
            left.cancel()


def in_worker() -> bool:
    """Whether this is one of the threads that :func:`ordered_map` keeps, of which there are as many as cores."""
    return getattr(_here, "is_worker", False)


def by_rows(work: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[Tensor, ...]:
    """``work(*inputs)`` for work that treats every row alone: on the CPU a core does its share of the rows.

    Between one such call and the next nothing waits but the caller; see :func:`ordered_map`.

    Args:
        work: [r, K], ... -> [r, M], ..., each output row made from the input rows of the same place.
        inputs: each [B, N, K].

    Returns:
        Each [B, N, M].
    """
    batch, tokens = inputs[0].shape[:2]
    rows, threads = batch * tokens, torch.get_num_threads()
    flat = [x.reshape(rows, -1) for x in inputs]
    if not head_by_head(inputs[0]) or threads <= 1 or rows < threads:
        return tuple(out.view(batch, tokens, -1) for out in work(*flat))
    outputs: list[Tensor] = []
    lock = threading.Lock()

    def share(index: int) -> None:
        mine = slice(rows * index // threads, rows * (index + 1) // threads)
        results = work(*(x[mine] for x in flat))
        with lock:
            if not outputs:  # whoever is first knows how wide they are
                outputs.extend(result.new_empty((rows, *result.shape[1:])) for result in results)
        for out, result in zip(outputs, results, strict=True):
            out[mine] = result

    for _ in ordered_map(share, threads):
        pass
    return tuple(out.view(batch, tokens, -1) for out in outputs)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    outside = torch.get_num_threads()
    ready = threading.Barrier(threads + 1)

    def single() -> None:
        _here.is_worker = True
        torch.get_num_threads()  # a thread's first look at the number overwrites what was set before it
        torch.set_num_threads(1)  # of this thread; but threads made later inherit it too, hence below
        ready.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="cliper-ops")
    for _ in range(threads):
        pool.submit(single)
    ready.wait()
    torch.set_num_threads(outside)
    return pool
