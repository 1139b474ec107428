"""Admission of requests, their deadlines, and the threads that decode and encode for them."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from starlette.requests import Request
from starlette.types import Scope

from cliper.errors import CliperError
from cliper.server.batcher import DynamicBatcher, Prediction
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
    """A model with a bounded queue; used as a context manager, which waits for its threads at the end.

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
        self.batcher = DynamicBatcher(model, window=window, metrics=self.metrics)
        self.threads = ThreadPoolExecutor(CODEC_THREADS, thread_name_prefix="cliper-codec")
        self._lock = threading.Lock()
        gauge = self.metrics.gauge
        gauge("cliper_requests_in_flight", "Admitted requests that are not answered.", lambda: self.in_flight)
        gauge("cliper_text_cache_hits", "Texts found in the cache.", lambda: model.texts.hits)
        gauge("cliper_text_cache_misses", "Texts that were encoded.", lambda: model.texts.misses)

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping = True
        self.batcher.close()
        self.threads.shutdown()

    @contextmanager
    def admit(self) -> Iterator[RequestContext]:
        """Admit a request, before any of its body is read; it is in flight until its response has been sent.

        Raises:
            HTTPError: 429 too many requests, 503 the server is stopping.
        """
        if self.stopping:
            raise HTTPError(503, "this server is stopping; ask again later", {"Retry-After": "5"})
        limit = self.model.limits.queue
        if self.in_flight >= limit:
            # About half of the requests in flight will be done by then.
            seconds = math.ceil(self.in_flight * self.batcher.seconds_per_image / 2)
            retry = {"Retry-After": str(min(MAX_RETRY_SECONDS, max(1, seconds)))}
            raise HTTPError(429, f"expected at most {limit} concurrent requests; ask again later", retry)
        context = RequestContext(self)
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


class RequestContext:
    """An admitted request, and its deadline."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._deadline = asyncio.get_running_loop().time() + service.model.limits.seconds
        self._work: Future[Any] | None = None

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once no thread works for this request."""
        if self._work is None:
            callback()
        else:
            self._work.add_done_callback(lambda _: callback())

    async def _finish(self, awaitable: Awaitable[T], status: int, doing: str) -> T:
        """Await something until the deadline, with errors of the package as HTTPError."""
        try:
            async with asyncio.timeout_at(self._deadline):
                return await awaitable
        except TimeoutError:
            seconds = self._service.model.limits.seconds
            headers = {"Connection": "close"} if status == 408 else {"Retry-After": "5"}
            raise HTTPError(status, f"expected to finish in {seconds:g} s, timed out {doing}", headers) from None
        except CliperError as error:
            raise http_error(error) from None

    async def read(self, body: Awaitable[T]) -> T:
        """Await the body.

        Raises:
            HTTPError: 408 at the deadline, and those of ``body``.
        """
        return await self._finish(body, 408, "while the request was read; send it faster")

    async def run_in_thread(self, work: Callable[[*Ts], T], *given: *Ts) -> T:
        """Run a blocking function in a thread: decoding, encoding.

        Raises:
            HTTPError: 504 at the deadline; for an error of the package see :func:`http_error`.
        """
        future = self._work = self._service.threads.submit(work, *given)
        return await self._finish(asyncio.wrap_future(future), 504, "while it was decoded or encoded; ask for less")

    async def segment(self, segment_request: SegmentRequest, request: Request) -> Prediction:
        """Await the model. The request is dropped from the queue if the client disconnects or the deadline passes.

        Raises:
            HTTPError: 504 at the deadline, 499 if the client disconnected; for an error of the package see
                :func:`http_error`.
        """
        result = asyncio.ensure_future(self._service.batcher.segment(segment_request))
        disconnected = asyncio.ensure_future(_disconnected(request))
        both: set[asyncio.Future[Any]] = {result, disconnected}
        doing = "in the queue or in the model; ask for less, or again later"
        try:
            await self._finish(asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED), 504, doing)
            if not result.done():
                raise HTTPError(499, "the client disconnected")
            return await self._finish(result, 504, doing)
        finally:
            for task in both:
                task.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
