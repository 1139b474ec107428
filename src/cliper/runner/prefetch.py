"""Images read ahead of the model by threads, and grouped by size."""

from __future__ import annotations

import contextlib
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
    """Read items while the caller works on earlier ones.

    Args:
        items: listed by the threads, too, so that a slow listing does not hold up the caller.
        read: reads one item, in any thread.
        threads: number of threads.
        ahead: number of items that may wait for the caller.

    Yields:
        What ``read`` gave, as soon as it is ready; with one thread in the order of ``items``.

    Raises:
        Exception: what listing or ``read`` raised, after the items before it.
    """
    todo, listing = iter(items), threading.Lock()
    ready: queue.Queue[tuple[Loaded | None, BaseException | None]] = queue.Queue(ahead)
    stopped = threading.Event()

    def hand_out(value: Loaded | None, error: BaseException | None = None) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                ready.put((value, error), timeout=0.1)
                return

    def work() -> None:
        end: BaseException = _END
        try:
            while not stopped.is_set():
                with listing:
                    item = next(todo, None)
                if item is None:
                    break
                hand_out(read(item))
        except BaseException as error:
            end = error
        hand_out(None, end)

    # Daemons: a program that ends does not wait for the image that one of them reads.
    for number in range(threads):
        threading.Thread(target=work, name=f"cliper-read-{number}", daemon=True).start()
    failure: BaseException | None = None
    try:
        running = threads
        while running:
            value, error = ready.get()
            if error is None:
                yield value  # type: ignore[misc]
            else:
                running -= 1
                failure = failure if error is _END else error
    finally:
        stopped.set()
    if failure is not None:
        raise failure


_END = StopIteration()  # a thread has nothing more to do


def group_by_size(items: Iterable[T], max_size: int, size: Callable[[T], Hashable]) -> Iterator[list[T]]:
    """Group items of one size, for models that are faster with many at once.

    Args:
        items: at most ``8 * max_size`` of them are held at any time.
        max_size: number of items in a group; fewer come where no more of that size are near.
        size: of an item; an item without one (None) comes alone.

    Yields:
        Groups; with ``max_size=1`` in the order of ``items``.

    Example:
        >>> list(group_by_size(["cat", "cow", "horse", "dog"], 2, len))
        [['cat', 'cow'], ['horse'], ['dog']]
    """
    groups: dict[Hashable, list[T]] = {}
    held = 0
    for item in items:
        key = size(item)
        if key is None:
            yield [item]
            continue
        group = groups.setdefault(key, [])
        group.append(item)
        held += 1
        if len(group) >= max_size:
            ready = groups.pop(key)
        elif held >= 8 * max_size:
            ready = groups.pop(next(iter(groups)))  # the one that has waited longest
        else:
            continue
        held -= len(ready)
        yield ready
    yield from groups.values()
