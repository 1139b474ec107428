"""Sessions whose answers Gradio keeps until they are fetched: how many, and how many answers of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from cliper.web.page.limits import Limits

__all__ = ["Sessions"]


class Sessions:
    """What Gradio's queue keeps by the names of sessions. For the thread that serves requests.

    Gradio keeps the answers of 2,000 sessions, however many each has, and those who never fetch them push out the
    sessions of others; a session that is pushed out while its event waits ends the queue.

    Args:
        page: of which they are.
        limits: how many answers, and how many sessions.
    """

    def __init__(self, page: gr.Blocks, limits: Limits) -> None:
        self._page, self._limits = page, limits
        self._listening: Counter[str] = Counter()

    def known(self, name: object) -> bool:
        """Whether there are, or were, answers for a session."""
        return name in self._page._queue.pending_messages_per_session

    @contextmanager
    def listening(self, name: str) -> Iterator[None]:
        """In the block, a session's answers are fetched."""
        self._listening[name] += 1
        try:
            yield
        finally:
            self._listening[name] -= 1
            if not self._listening[name]:
                del self._listening[name]

    async def admit(self, name: str) -> bool:
        """Whether a session may have one more event. For it, sessions are forgotten that nobody fetches from."""
        queue = self._page._queue
        messages = queue.pending_messages_per_session
        if name in messages:
            messages.move_to_end(name)
            waiting = sum(event.session_hash == name for event in queue.event_ids_to_events.values())
            if waiting + messages[name].qsize() >= self._limits.unfetched:
                return False
        unheard = [other for other in messages if other != name and other not in self._listening]
        for other in unheard[: max(0, len(unheard) - self._limits.unheard)]:
            await queue.clean_events(session_hash=other)
            messages.pop(other, None)
        for other in [other for other in queue.pending_event_ids_session if other not in messages]:
            del queue.pending_event_ids_session[other]
        return name in messages or len(messages) < messages.max_size
