"""Dynamic batching: requests queue for the model, and those with equal keys share a batch."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cliper.errors import CliperError
from cliper.prompts import ClassPrompt, load_templates
from cliper.server.request import SegmentRequest

if TYPE_CHECKING:
    from cliper.result import Segmentation
    from cliper.server.metrics import Metrics
    from cliper.server.models import ServedModel

__all__ = ["DynamicBatcher", "Prediction"]

_CHUNK_TEXTS = 128  # a few seconds of a text tower as large as ViT-L/14's on two cores of a CPU


@dataclass(frozen=True, eq=False)
class Prediction:
    """The result of a request, and the seconds that the model took for its whole batch."""

    result: Segmentation
    seconds: float


@dataclass(frozen=True, eq=False)
class _Pending:
    request: SegmentRequest
    future: asyncio.Future[Prediction]
    arrived: float


class DynamicBatcher:
    """The queue of the model, which runs in one thread. For one event loop; the caller bounds the queue.

    Args:
        model: computes the batches.
        window: seconds that the first request of a batch waits for others.
        metrics: to record.
    """

    def __init__(self, model: ServedModel, *, window: float, metrics: Metrics) -> None:
        self._model, self._window, self._metrics = model, window, metrics
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cliper-model")
        self._queue: list[_Pending] = []
        self._arrival = asyncio.Event()
        self._task: asyncio.Task[None] | None = None  # runs while there are requests
        self.seconds_per_image = 0.5
        """Moving average."""

    def close(self) -> None:
        """Wait for the current batch."""
        self._thread.shutdown()

    async def segment(self, request: SegmentRequest) -> Prediction:
        """Queue a request and await its result; a cancelled request is removed from the queue."""
        loop = asyncio.get_running_loop()
        pending = _Pending(request, loop.create_future(), loop.time())
        self._queue.append(pending)
        self._arrival.set()
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
            if batch := await self._next_batch():
                await self._compute(batch)

    async def _next_batch(self) -> list[_Pending]:
        """The oldest request and those with the same key; empty if the oldest was cancelled."""
        first = self._queue[0]
        deadline = first.arrived + self._window
        while True:
            batch = [pending for pending in self._queue if pending.request.key == first.request.key]
            batch = batch[: self._model.batch] if first in batch else []
            if not batch or len(batch) == self._model.batch or asyncio.get_running_loop().time() >= deadline:
                self._queue = [pending for pending in self._queue if pending not in batch]
                return batch
            self._arrival.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._arrival.wait()
            except TimeoutError:
                pass

    async def _compute(self, batch: list[_Pending]) -> None:
        try:
            done = await asyncio.get_running_loop().run_in_executor(self._thread, self._segment, batch)
        except CliperError as error:
            if len(batch) > 1:  # too large together, perhaps
                for pending in batch:
                    await self._compute([pending])
                return
            done = [(pending, error) for pending in batch]
        except Exception as error:  # a defect: the queue goes on, and the client gets a response
            done = [(pending, error) for pending in batch]
        for pending, outcome in done:
            if pending.future.done():
                continue
            if isinstance(outcome, Exception):
                pending.future.set_exception(outcome)
            else:
                pending.future.set_result(outcome)

    def _segment(self, batch: list[_Pending]) -> list[tuple[_Pending, Prediction | Exception]]:
        """Compute a batch, less the requests that were cancelled; runs in the thread."""
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
        return [(pending, Prediction(result, seconds)) for pending, result in zip(active, results, strict=True)]

    def _encode_texts(self, batch: list[_Pending]) -> None:
        """Encode the unknown texts of a long list into the model's cache, chunk by chunk while a client waits.

        A short list is left to the segmenter.
        """
        request, texts = batch[0].request, self._model.texts
        prompts = list(dict.fromkeys(p for item in (*request.classes, *request.background) for p in item.prompts))
        templates = load_templates(request.segmenter.settings.templates)
        size = max(1, _CHUNK_TEXTS // len(templates))
        prompts = texts.missing(request.segmenter.encoder.text_fingerprint(), templates, prompts)
        for first in range(0, len(prompts) if len(prompts) > size else 0, size):
            if all(pending.future.done() for pending in batch):
                return
            chunk = enumerate(prompts[first : first + size])
            request.segmenter.encode_text([ClassPrompt(f"text {number}", (prompt,)) for number, prompt in chunk])
