"""Admission of requests, their deadlines, and the threads that decode and encode for them."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from starlette.requests import Request
from starlette.types import Scope

from cliper.errors import CliperError
from cliper.server.batcher import DynamicBatcher, PendingRequest, Prediction
from cliper.server.errors import HTTPError, http_error
from cliper.server.metrics import Metrics
from cliper.server.models import CODEC_THREADS, ServedModel
from cliper.server.request import SegmentRequest

if TYPE_CHECKING:
    from cliper.server.label_studio import MediaFolder

__all__ = ["MAX_RETRY_SECONDS", "RequestContext", "Service"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MAX_RETRY_SECONDS = 60
"""Largest value of Retry-After."""


class Service:
    """A model with a bounded queue; used as a context manager, which waits for admitted requests at the end.

    Args:
        model: the model, and the limits.
        window: seconds that a request waits for others to join its batch.
        token: that clients must send, or None.
        media: folder of the images of Label Studio's tasks, or None.
        loopback_only: require a Host header that names this machine.
        origins: other origins whose pages may send requests (CORS).
    """

    def __init__(
        self,
        model: ServedModel,
        *,
        window: float = 0.005,
        token: str | None = None,
        media: MediaFolder | None = None,
        loopback_only: bool = False,
        origins: tuple[str, ...] = (),
    ) -> None:
        self.model, self.token, self.media = model, token, media
        self.loopback_only, self.origins = loopback_only, origins
        self.metrics = Metrics()
        self.stopping = False
        """Set to refuse new requests; admitted ones are finished."""
        self.in_flight = 0
        """Admitted requests whose response has not been sent."""
        self.abort_connection: Callable[[Scope], None] = lambda scope: None
        """Closes a request's connection at once; the HTTP server sets it."""
        self._lock = threading.Lock()
        self._batcher = DynamicBatcher(model, window=window, metrics=self.metrics)
        self._threads = ThreadPoolExecutor(CODEC_THREADS, thread_name_prefix="cliper-codec")
        self._exit = ExitStack()
        self.metrics.gauge(
            "cliper_requests_in_flight", "Admitted requests that are not answered.", lambda: self.in_flight
        )
        self.metrics.gauge("cliper_text_cache_hits", "Texts found in the cache.", lambda: model.texts.hits)
        self.metrics.gauge("cliper_text_cache_misses", "Texts that were encoded.", lambda: model.texts.misses)

    def __enter__(self) -> Service:
        self._exit.enter_context(self._threads)
        self._exit.enter_context(self._batcher)
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping = True
        self._exit.close()

    @contextmanager
    def admit(self) -> Iterator[RequestContext]:
        """Admit a request, before any of its body is read; it is in flight until its response has been sent.

        Raises:
            HTTPError: 429 too many requests, 503 the server is stopping.
        """
        if self.stopping:
            raise HTTPError(503, "this server is stopping; ask again later", {"Retry-After": "5"})
        limits = self.model.limits
        if self.in_flight >= limits.queue:
            retry = {"Retry-After": str(self._retry_after())}
            raise HTTPError(429, f"expected at most {limits.queue} concurrent requests; ask again later", retry)
        context = RequestContext(self, time.monotonic() + limits.seconds)
        with self._lock:
            self.in_flight += 1
        try:
            yield context
        finally:
            # A thread cannot be stopped: its memory belongs to this request until it is done.
            context.when_done(self._leave)

    def _leave(self) -> None:
        with self._lock:
            self.in_flight -= 1

    def _retry_after(self) -> int:
        """Seconds after which about half of the requests in flight will be done."""
        return min(MAX_RETRY_SECONDS, max(1, math.ceil(self.in_flight * self._batcher.seconds_per_image / 2)))


class RequestContext:
    """An admitted request and its deadline.

    Args:
        service: that admitted it.
        deadline: of ``time.monotonic``.
    """

    def __init__(self, service: Service, deadline: float) -> None:
        self._service, self._deadline = service, deadline
        self._work: Future[Any] | None = None

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once no thread works for this request."""
        if self._work is None:
            callback()
        else:
            self._work.add_done_callback(lambda _: callback())

    @contextmanager
    def _as_http_errors(self, status: int, doing: str) -> Iterator[None]:
        seconds = self._service.model.limits.seconds
        try:
            yield
        except TimeoutError:
            headers = {"Connection": "close"} if status == 408 else {"Retry-After": "5"}
            raise HTTPError(status, f"expected to finish in {seconds:g} s, timed out {doing}", headers) from None
        except CliperError as error:
            raise http_error(error) from None

    @property
    def _remaining(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    async def read(self, reading: Awaitable[T]) -> T:
        """Await the body.

        Raises:
            HTTPError: 408 at the deadline, and those of ``reading``.
        """
        with self._as_http_errors(408, "while the request was read; send it faster"):
            async with asyncio.timeout(self._remaining):
                return await reading

    async def run_in_thread(self, work: Callable[[*Ts], T], *given: *Ts) -> T:
        """Run a blocking function in a thread: decoding, encoding.

        Raises:
            HTTPError: 504 at the deadline; for an error of the package see :func:`http_error`.
        """
        with self._as_http_errors(504, "while it was decoded or encoded; ask for less"):
            async with asyncio.timeout(self._remaining):
                future = self._work = self._service._threads.submit(work, *given)
                return await asyncio.wrap_future(future)

    async def segment(self, segment_request: SegmentRequest, request: Request) -> Prediction:
        """Await the model. A request whose client disconnects, or whose deadline passes, is dropped from the queue.

        Args:
            segment_request: input of the model.
            request: its body has been read.

        Raises:
            HTTPError: 504 at the deadline, 499 if the client disconnected; for an error of the package see
                :func:`http_error`.
        """
        pending = PendingRequest(segment_request, self._deadline)
        self._service._batcher.put(pending)
        future = asyncio.wrap_future(pending.future)
        disconnected = asyncio.ensure_future(_disconnected(request))
        try:
            with self._as_http_errors(504, "in the queue or in the model; ask for less, or again later"):
                async with asyncio.timeout(self._remaining):
                    both: set[asyncio.Future[Any]] = {future, disconnected}
                    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                if not future.done():
                    raise HTTPError(499, "the client disconnected")
                return future.result()
        finally:
            disconnected.cancel()
            future.cancel()
            pending.cancelled = True


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
