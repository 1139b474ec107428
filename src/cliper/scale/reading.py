"""Pictures read ahead of the model by threads."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Iterable

from cliper.scale.items import Item
from cliper.scale.job import Loaded, read_item

__all__ = ["read_ahead"]


def read_ahead(items: Iterable[Item], *, threads: int, ahead: int) -> Generator[Loaded, None, None]:
    """Read pictures while the caller works on earlier ones.

    Args:
        items: listed by the threads too, so that a slow listing does not hold up the caller.
        threads: that read; Pillow decodes outside of Python's lock.
        ahead: how many pictures may wait for the caller.

    Yields:
        Pictures as they are ready; with one thread in the order of ``items``.

    Raises:
        Exception: what listing raised, once all that came before was handed out.
    """
    todo, listing = iter(items), threading.Lock()
    ready: queue.Queue[Loaded | BaseException | None] = queue.Queue(ahead)
    stopped = threading.Event()

    def hand_out(value: Loaded | BaseException | None) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(value, timeout=0.1)
                return

    def work() -> None:
        try:
            while not stopped.is_set():
                with listing:
                    item = next(todo, None)
                if item is None:
                    break
                hand_out(read_item(item))
        except BaseException as error:
            hand_out(error)
        hand_out(None)

    # Daemons: a program that ends does not wait for the picture that one of them may be decoding.
    for number in range(threads):
        threading.Thread(target=work, name=f"cliper-read-{number}", daemon=True).start()
    failure: BaseException | None = None
    try:
        running = threads
        while running:
            value = ready.get()
            if value is None:
                running -= 1
            elif isinstance(value, BaseException):
                failure = value
            else:
                yield value
    finally:
        stopped.set()
    if failure is not None:
        raise failure
