"""Images read ahead of the model by threads, and grouped by size."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from typing import TypeVar

__all__ = ["group_by_size", "read_ahead"]

T = TypeVar("T")
Loaded = TypeVar("Loaded")


def read_ahead(
    items: Iterable[T], read: Callable[[T], Loaded], *, threads: int, ahead: int
) -> Generator[Loaded, None, None]:
    """Read items in threads while the caller works on earlier ones; up to ``ahead`` may wait for the caller.

    The threads list the items, too, so that a slow listing does not hold up the caller.

    Yields:
        What ``read`` gave, as soon as it is ready; with one thread in the order of ``items``. What listing or ``read``
        raised is raised after the items before it.
    """
    todo, listing = iter(items), threading.Lock()
    ready: queue.SimpleQueue[tuple[Loaded] | BaseException | None] = queue.SimpleQueue()
    slots, stopped = threading.Semaphore(threads + ahead), threading.Event()

    def work() -> None:
        end = None
        try:
            while slots.acquire() and not stopped.is_set():
                with listing:
                    item = next(todo, None)
                if item is None:
                    break
                ready.put((read(item),))
        except BaseException as error:
            end = error
        ready.put(end)

    # Daemons: a program that ends does not wait for the image that one of them reads.
    for number in range(threads):
        threading.Thread(target=work, name=f"cliper-read-{number}", daemon=True).start()
    running, failure = threads, None
    try:
        while running:
            message = ready.get()
            if isinstance(message, tuple):
                yield message[0]
                slots.release()
            else:  # the end of a thread
                running -= 1
                failure = message or failure
    finally:
        stopped.set()
        slots.release(threads)
    if failure is not None:
        raise failure


def group_by_size(items: Iterable[T], max_size: int, size: Callable[[T], Hashable]) -> Iterator[list[T]]:
    """Group items of one size, for models that are faster with many at once; at most ``8 * max_size`` are held.

    Groups are smaller where no more items of that size are near.

    Example:
        >>> list(group_by_size(["cat", "cow", "horse", "dog"], 2, len))
        [['cat', 'cow'], ['horse'], ['dog']]
    """
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        key = size(item)
        group = groups.setdefault(key, [])
        group.append(item)
        if len(group) >= max_size:
            yield groups.pop(key)
        elif sum(map(len, groups.values())) >= 8 * max_size:
            yield groups.pop(next(iter(groups)))  # the one that has waited longest
    yield from groups.values()
