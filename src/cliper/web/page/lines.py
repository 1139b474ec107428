"""The page's events: what each takes, and how many of a kind may wait. Each kind waits in a line of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from cliper.web.page.limits import Limits

__all__ = ["FILES", "NETWORKS", "QUICK", "Lines"]

NETWORKS, QUICK, FILES = "networks", "quick", "files"
"""Kinds of events: ``concurrency_id`` as Gradio calls it."""

# Bytes that an event says at most. Segmenting says all that was filled in: 200 texts of 300 letters, each letter up to
# 6 bytes as JSON escapes it, or twice 6. Pictures are uploaded, and have a limit of their own.
_BYTES = {NETWORKS: 2**20, QUICK: 2**16, FILES: 2**16}


class Lines:
    """Who may join a line of Gradio's queue. For the thread that serves requests.

    Gradio has one limit for all that wait, of whatever kind: the visitors who wait for a network would keep those out
    who have a result and move a threshold. So it gets none, and each kind is limited here.

    Args:
        page: all of whose events are there.
        limits: how many may wait.
    """

    def __init__(self, page: gr.Blocks, limits: Limits) -> None:
        self._page = page
        self._events = {number: event for number, event in page.fns.items() if event.fn is not None}
        self._most = {NETWORKS: limits.waiting, QUICK: limits.waiting_quick, FILES: limits.waiting_files}
        self._joining: Counter[str] = Counter()

    def takes(self, event: object) -> int | None:
        """How many values an event takes; None where there is no such event."""
        known = self._events.get(event) if isinstance(event, int) and not isinstance(event, bool) else None
        return None if known is None else len(known.inputs)

    def picture(self, event: int) -> int | None:
        """Which of an event's values is the picture; None where none is."""
        places = (at for at, part in enumerate(self._events[event].inputs) if isinstance(part, gr.Image))
        return next(places, None)

    def largest(self, event: int) -> int:
        """Bytes that an event says at most."""
        return _BYTES[self._events[event].concurrency_id]

    def waiting(self, kind: str) -> int:
        """How many wait, besides those that are being worked on."""
        queue = self._page._queue.event_queue_per_concurrency_id.get(kind)  # Gradio tells only the sum of all
        return self._joining[kind] + (0 if queue is None else len(queue.queue))

    @contextmanager
    def place(self, event: int) -> Iterator[bool]:
        """Whether there is a place for an event; it is held for the block, in which Gradio is to be given the event."""
        kind = self._events[event].concurrency_id
        free = self.waiting(kind) < self._most[kind]
        self._joining[kind] += free
        try:
            yield free
        finally:
            self._joining[kind] -= free
