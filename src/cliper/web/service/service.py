"""The service itself, below HTTP: who is let in, for how long, and where the work is done."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar, TypeVarTuple

from starlette.requests import Request

from cliper.errors import CliperError
from cliper.web.service.folder import PictureFolder
from cliper.web.service.line import Done, Job, Line
from cliper.web.service.metrics import Metrics
from cliper.web.service.refusal import Refusal, refusal_of
from cliper.web.service.served import Served
from cliper.web.service.wish import Wish
from cliper.web.service.words import read_words

__all__ = ["LONGEST_WAIT", "Service", "Turn"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

LONGEST_WAIT = 60
"""Seconds that a client is told to stay away at most."""

_CODERS = 2  # threads that decode pictures and write answers


class Service:
    """A model with a line of requests before it. Used as a context manager; the end waits for what was begun.

    Args:
        served: the model, and the limits.
        window: seconds that a request waits for others like it, where the model takes several at once.
        token: that callers must have, or None.
        folder: where Label Studio's pictures lie, or None.
    """

    def __init__(
        self,
        served: Served,
        *,
        window: float = 0.005,
        token: str | None = None,
        folder: PictureFolder | None = None,
    ) -> None:
        self.served, self.token, self.folder = served, token, folder
        self.metrics = Metrics()
        self.stopping = False
        """Set to refuse what is new; what was let in is finished."""
        self.inside = 0
        """Requests that were let in and whose answer has not been sent."""
        self._counting = threading.Lock()
        self._line = Line(
            batch=served.batch,
            window=window,
            metrics=self.metrics,
            prepare=lambda wish, wanted: read_words(wish, served.texts, wanted),
        )
        self._coders = ThreadPoolExecutor(_CODERS, thread_name_prefix="cliper-coder")
        self._ends = ExitStack()
        self.metrics.gauge("cliper_requests_inside", "Requests let in, not answered to the end.", lambda: self.inside)
        self.metrics.gauge("cliper_texts_found", "Lookups of texts that were known.", lambda: served.texts.hits)
        self.metrics.gauge("cliper_texts_made", "Texts that were encoded.", lambda: served.texts.misses)

    def __enter__(self) -> Service:
        self._ends.enter_context(self._coders)
        self._ends.enter_context(self._line)
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping = True
        self._ends.close()

    @contextmanager
    def admit(self) -> Iterator[Turn]:
        """Let a request in, before any of its body is read; it is inside until its answer has been sent.

        Raises:
            Refusal: 429 too many are inside, 503 the service is stopping.
        """
        if self.stopping:
            raise Refusal(503, "this service is stopping; ask again later", {"Retry-After": "5"})
        limits = self.served.limits
        if self.inside >= limits.queue:
            wait = {"Retry-After": str(self._retry_after())}
            raise Refusal(429, f"expected at most {limits.queue} requests at a time, got more; ask again later", wait)
        turn = Turn(self, time.monotonic() + limits.seconds)
        with self._counting:
            self.inside += 1
        try:
            yield turn
        finally:
            # A thread that decodes or writes cannot be stopped: its memory is this request's until it is done.
            turn.when_done(self._leave)

    def _leave(self) -> None:
        with self._counting:
            self.inside -= 1

    def _retry_after(self) -> int:
        """Seconds after which about half of those inside will be done."""
        return min(LONGEST_WAIT, max(1, math.ceil(self.inside * self._line.seconds_each / 2)))


class Turn:
    """A request that was let in, and the time that it has.

    Args:
        service: that let it in.
        deadline: of ``time.monotonic``.
    """

    def __init__(self, service: Service, deadline: float) -> None:
        self._service, self._deadline = service, deadline
        self._coding: Future[Any] | None = None

    def when_done(self, then: Callable[[], None]) -> None:
        """Call something once no thread decodes or writes for this request any more."""
        if self._coding is None:
            then()
        else:
            self._coding.add_done_callback(lambda _: then())

    @contextmanager
    def _translated(self, status: int, doing: str) -> Iterator[None]:
        seconds = self._service.served.limits.seconds
        try:
            yield
        except TimeoutError:
            headers = {"Connection": "close"} if status == 408 else {"Retry-After": "5"}
            raise Refusal(
                status, f"expected to be done in {seconds:g} s, got no further than {doing}", headers
            ) from None
        except CliperError as error:
            raise refusal_of(error) from None

    @property
    def _left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    async def read(self, reading: Awaitable[T]) -> T:
        """Wait for the body.

        Raises:
            Refusal: 408 when the time is over, and those of the reading.
        """
        with self._translated(408, "reading the request; send it faster"):
            async with asyncio.timeout(self._left):
                return await reading

    async def code(self, work: Callable[[*Ts], T], *given: *Ts) -> T:
        """Do what takes a while in a thread: decoding, writing answers.

        Raises:
            Refusal: 504 when the time is over; of an error of the package, as :func:`refusal_of` has it.
        """
        with self._translated(504, "decoding or answering; ask for less"):
            async with asyncio.timeout(self._left):
                return await self.write(work, *given)

    async def write(self, work: Callable[[*Ts], T], *given: *Ts) -> T:
        """As :meth:`code` for what is quickly written down: it is answered even if the time ends meanwhile."""
        coding = self._coding = self._service._coders.submit(work, *given)
        return await asyncio.wrap_future(coding)

    async def segment(self, wish: Wish, request: Request) -> Done:
        """Wait for the model. If the client goes, or the time is over, what is not begun is not done, and of what is
        begun no more words are read.

        Args:
            wish: what to do.
            request: whose body has been read.

        Raises:
            Refusal: 504 when the time is over, 499 when the client has gone; of an error of the package, as
                :func:`refusal_of` has it.
        """
        job = Job(wish, self._deadline)
        self._service._line.put(job)
        future = asyncio.wrap_future(job.future)
        gone = asyncio.ensure_future(_gone(request))
        try:
            with self._translated(504, "waiting for the model, or in it; ask for less, or again later"):
                async with asyncio.timeout(self._left):
                    either: set[asyncio.Future[Any]] = {future, gone}
                    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if not future.done():
                    raise Refusal(499, "the client has gone")
                return future.result()
        finally:
            gone.cancel()
            future.cancel()
            job.gone = True


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
