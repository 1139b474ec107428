"""The queue: admission of requests, dynamic batching, the threads that decode and encode, and metrics."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fastapi import HTTPException
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.requests import Request

from cliper.devices import use_one_core
from cliper.errors import CliperError
from cliper.examples import EXAMPLE_CLASSES
from cliper.prompts import ClassPrompt, load_templates
from cliper.result import Segmentation
from cliper.server.models import CODEC_THREADS, PreparedRequest, ServedModel
from cliper.server.schemas import SegmentRequest

__all__ = ["EXAMPLE", "MAX_RETRY_SECONDS", "DynamicBatcher", "Metrics", "Prediction", "Service", "cancel_on_disconnect"]

T = TypeVar("T")
Prediction = tuple[Segmentation, float]
"""The result of a request, and the seconds that the model took for its whole batch."""

MAX_RETRY_SECONDS = 60
"""Largest value of Retry-After."""
EXAMPLE = {"classes": [EXAMPLE_CLASSES], "background": ["auto"]}
"""The first words of the page, which fit the bundled photo."""

_CHUNK_TEXTS = 128  # a few seconds of a text tower as large as ViT-L/14's on two cores of a CPU
_BATCH_POLL_SECONDS, _POLL_SECONDS = 0.001, 0.1
_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


class Metrics:
    """Metrics of one server for Prometheus. Labels take few known values: clients cannot create new ones."""

    def __init__(self) -> None:
        self.registry = to = CollectorRegistry()
        self.requests = Counter("cliper_requests", "Responses.", ["path", "method", "status"], registry=to)
        self.seconds = Histogram("cliper_request_seconds", "Time of requests.", ["path"], buckets=_BUCKETS, registry=to)
        self.batches = Histogram("cliper_batch_images", "Images in batches.", buckets=(1, 2, 4, 8, 16), registry=to)
        self.model_seconds = Histogram("cliper_model_seconds", "Time of batches.", buckets=_BUCKETS, registry=to)
        self.dropped = Counter("cliper_dropped", "Queued requests that were not computed.", registry=to)
        ProcessCollector(registry=to)


@dataclass(frozen=True, eq=False)
class _Pending:
    request: PreparedRequest
    future: asyncio.Future[Prediction]
    deadline: float  # of waiting for others


class DynamicBatcher:
    """The queue of the model, which runs in one thread; requests with equal keys share a batch.

    For one event loop; the caller bounds the queue.

    Args:
        model: computes the batches.
        window: seconds that the first request of a batch waits for others.
        metrics: to record.
    """

    def __init__(self, model: ServedModel, *, window: float, metrics: Metrics) -> None:
        self._model, self._window, self._metrics = model, window, metrics
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cliper-model")
        self._queue: list[_Pending] = []
        self._task: asyncio.Task[None] | None = None  # runs while there are requests
        self.seconds_per_image = 0.5
        """Moving average."""

    def close(self) -> None:
        """Wait for the current batch."""
        self._thread.shutdown()

    async def segment(self, request: PreparedRequest) -> Prediction:
        """Queue a request and await its result; a cancelled request is removed from the queue."""
        loop = asyncio.get_running_loop()
        pending = _Pending(request, loop.create_future(), loop.time() + self._window)
        self._queue.append(pending)
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run())
        try:
            return await pending.future
        finally:
            if pending in self._queue:
                self._queue.remove(pending)
                self._metrics.dropped.inc()

    async def _run(self) -> None:
        while self._queue:
            first = self._queue[0]
            batch = [pending for pending in self._queue if pending.request.key == first.request.key]
            if len(batch) < self._model.batch and asyncio.get_running_loop().time() < first.deadline:
                await asyncio.sleep(_BATCH_POLL_SECONDS)
                continue
            batch = batch[: self._model.batch]
            self._queue = [pending for pending in self._queue if pending not in batch]
            await self._compute(batch)

    async def _compute(self, batch: list[_Pending]) -> None:
        try:
            done = await asyncio.get_running_loop().run_in_executor(self._thread, self._segment, batch)
        except Exception as error:
            if isinstance(error, CliperError) and len(batch) > 1:  # too large together, perhaps
                for pending in batch:
                    await self._compute([pending])
            for pending in batch:
                if not pending.future.done():
                    pending.future.set_exception(error)
            return
        for pending, prediction in done:
            if not pending.future.done():
                pending.future.set_result(prediction)

    def _segment(self, batch: list[_Pending]) -> list[tuple[_Pending, Prediction]]:
        """Compute a batch, less the requests that were cancelled, in the model's thread."""
        started = time.perf_counter()
        self._encode_texts(batch)
        active = [pending for pending in batch if not pending.future.done()]
        self._metrics.dropped.inc(len(batch) - len(active))
        if not active:
            return []
        results = self._model.segment([pending.request for pending in active])
        seconds = time.perf_counter() - started
        self._metrics.batches.observe(len(active))
        self._metrics.model_seconds.observe(seconds)
        self.seconds_per_image += 0.2 * (seconds / len(active) - self.seconds_per_image)
        return [(pending, (result, seconds)) for pending, result in zip(active, results, strict=True)]

    def _encode_texts(self, batch: list[_Pending]) -> None:
        """Encode the unknown texts of a long list into the model's cache, chunk by chunk while a client waits.

        A short list is left to the segmenter.
        """
        request, texts = batch[0].request, self._model.texts
        templates = load_templates(request.segmenter.settings.templates)
        size = max(1, _CHUNK_TEXTS // len(templates))
        prompts = texts.missing(request.segmenter.encoder.text_fingerprint(), templates, request.prompts)
        for first in range(0, len(prompts) if len(prompts) > size else 0, size):
            if all(pending.future.done() for pending in batch):
                return
            chunk = enumerate(prompts[first : first + size])
            request.segmenter.encode_text([ClassPrompt(f"text {number}", (prompt,)) for number, prompt in chunk])


class Service(AbstractContextManager["Service"]):
    """A model with a bounded queue; used as a context manager, which waits for its threads at the end.

    Args:
        model: the model, and the limits.
        window: seconds that a request waits for others to join its batch.
        token: that clients must send, or None.
        media: folder of the images of Label Studio's tasks, or None.
        loopback_only: require a Host header that names this machine.
        origins: other origins whose pages may send requests (CORS).
        example: the first words of the page: lists of classes and of background names.
    """

    def __init__(
        self,
        model: ServedModel,
        *,
        window: float = 0.005,
        token: str | None = None,
        media: Path | None = None,
        loopback_only: bool = False,
        origins: tuple[str, ...] = (),
        example: Mapping[str, list[str]] = EXAMPLE,
    ) -> None:
        self.model, self.token, self.media = model, token, media
        self.loopback_only, self.origins, self.example = loopback_only, origins, example
        self.in_flight = 0
        """Admitted requests that have no response yet."""
        self.metrics = Metrics()
        self._batcher = DynamicBatcher(model, window=window, metrics=self.metrics)
        self._threads = ThreadPoolExecutor(CODEC_THREADS, "cliper-codec", initializer=use_one_core)
        in_flight = Gauge("cliper_requests_in_flight", "Requests without a response.", registry=self.metrics.registry)
        in_flight.set_function(lambda: self.in_flight)

    def __exit__(self, *_: object) -> None:
        self._batcher.close()
        self._threads.shutdown()

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Admit a request, before any of its body is read.

        Raises:
            HTTPException: 429 too many requests.
        """
        limit = self.model.limits.queue
        if self.in_flight >= limit:
            # About half of the requests in flight will be done by then.
            seconds = math.ceil(self.in_flight * self._batcher.seconds_per_image / 2)
            retry = {"Retry-After": str(min(MAX_RETRY_SECONDS, max(1, seconds)))}
            raise HTTPException(429, f"expected at most {limit} concurrent requests; ask again later", retry)
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    async def run_in_thread(self, work: Callable[..., T], *given: Any) -> T:
        """Run a blocking function in a thread: decoding, encoding."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)

    async def segment(self, request: SegmentRequest) -> Prediction:
        """Check a request, decode its image, and await the model.

        Raises:
            HTTPException, CliperError: as :meth:`.ServedModel.prepare` and the segmenter raise them.
        """
        return await self._batcher.segment(await self.run_in_thread(self.model.prepare, request))


async def cancel_on_disconnect(work: Awaitable[T], request: Request) -> T:
    """Await ``work``, which is cancelled if the client disconnects. The request's body has been read.

    Raises:
        HTTPException: 499 the client disconnected.
    """
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=_POLL_SECONDS))[0]:
            if await request.is_disconnected():
                raise HTTPException(499, "the client disconnected")
        return task.result()
    finally:
        task.cancel()
