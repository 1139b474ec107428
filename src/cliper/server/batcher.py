"""Dynamic batching: requests queue for the model, and those with equal keys share a batch."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cliper.errors import CliperError
from cliper.prompts import ClassPrompt, load_templates
from cliper.server.request import SegmentRequest

if TYPE_CHECKING:
    from cliper.result import Segmentation
    from cliper.server.metrics import Metrics
    from cliper.server.models import ServedModel

__all__ = ["DynamicBatcher", "PendingRequest", "Prediction", "encode_in_chunks"]

_CHUNK_TEXTS = 128  # a few seconds of a text tower as large as ViT-L/14's on two cores of a CPU


@dataclass(frozen=True, eq=False)
class Prediction:
    """The result of a request.

    Args:
        result: the segmentation.
        seconds: time of the model for the whole batch.
    """

    result: Segmentation
    seconds: float


@dataclass(eq=False)
class PendingRequest:
    """A request in the queue.

    Args:
        request: input of the model.
        deadline: of ``time.monotonic``; the request is not computed after it.
        cancelled: set when the client is gone before that.
    """

    request: SegmentRequest
    deadline: float
    cancelled: bool = False
    arrived: float = field(default_factory=time.monotonic)
    future: Future[Prediction] = field(default_factory=Future)

    @property
    def active(self) -> bool:
        """Whether a client waits for the result."""
        return not self.cancelled and time.monotonic() <= self.deadline


class DynamicBatcher:
    """One thread that runs the model, and its queue; used as a context manager, which ends with the last request.

    The caller bounds the queue (:class:`cliper.server.admission.Service`).

    Args:
        model: computes the batches.
        window: seconds that the first request of a batch waits for others.
        metrics: to record.
    """

    def __init__(self, model: ServedModel, *, window: float, metrics: Metrics) -> None:
        self._model, self._window, self._metrics = model, window, metrics
        self._queue: list[PendingRequest] = []
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="cliper-model", daemon=True)
        self.seconds_per_image = 0.5
        """Moving average."""

    def __enter__(self) -> DynamicBatcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def put(self, pending: PendingRequest) -> None:
        """Add a request to the queue; cancelling its future removes it."""
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._queue.append(pending)
            self._changed.notify_all()
        known = weakref.ref(pending)  # otherwise request and future refer to each other and keep the image alive

        def remove(future: Future[Prediction]) -> None:
            found = known()
            if found is not None and future.cancelled():
                self._remove(found)

        pending.future.add_done_callback(remove)

    def _run(self) -> None:
        while batch := self._next_batch():
            started = [pending for pending in batch if self._start(pending)]
            if started:
                self._compute(started)
            del batch, started  # free images and results before waiting for the next batch

    def _next_batch(self) -> list[PendingRequest]:
        """The oldest request and those with the same key; empty once the batcher is closed and its queue empty."""
        with self._changed:
            while True:
                while not self._queue:
                    if self._closed:
                        return []
                    self._changed.wait()
                first = self._queue[0]  # again after each wait: it may have been removed
                batch = [pending for pending in self._queue if pending.request.key == first.request.key]
                batch = batch[: self._model.batch]
                remaining = first.arrived + self._window - time.monotonic()
                if len(batch) >= self._model.batch or remaining <= 0 or self._closed:
                    self._queue = [pending for pending in self._queue if pending not in batch]
                    return batch
                self._changed.wait(remaining)

    def _remove(self, pending: PendingRequest) -> None:
        """Drop a cancelled request, and its image, from the queue."""
        with self._changed:
            if pending in self._queue:
                self._queue.remove(pending)
                self._metrics.dropped.inc()

    def _start(self, pending: PendingRequest) -> bool:
        if not pending.active:
            pending.future.cancel()
        started = pending.future.set_running_or_notify_cancel()
        if not started:
            self._metrics.dropped.inc()
        return started

    def _drop_inactive(self, batch: Sequence[PendingRequest]) -> list[PendingRequest]:
        for pending in batch:
            if not pending.active:
                self._metrics.dropped.inc()
                pending.future.set_exception(TimeoutError())
        return [pending for pending in batch if not pending.future.done()]

    def _compute(self, batch: Sequence[PendingRequest]) -> None:
        started = time.perf_counter()
        try:
            encode_in_chunks(batch[0].request, self._model, lambda: any(pending.active for pending in batch))
            batch = self._drop_inactive(batch)
            if not batch:
                return
            results = self._model.segment([pending.request for pending in batch])
        except BaseException as error:  # any: the thread must survive, and every client get a response
            if len(batch) > 1 and isinstance(error, CliperError):  # too large together, perhaps
                for pending in batch:
                    self._compute([pending])
                return
            for pending in batch:
                pending.future.set_exception(error)
            return
        seconds = time.perf_counter() - started
        self._metrics.batches.observe(len(batch))
        self._metrics.model_seconds.observe(seconds)
        self.seconds_per_image += 0.2 * (seconds / len(batch) - self.seconds_per_image)
        for pending, result in zip(batch, results, strict=True):
            pending.future.set_result(Prediction(result, seconds))


def encode_in_chunks(request: SegmentRequest, model: ServedModel, active: Callable[[], bool]) -> None:
    """Encode the unknown texts of a long list into the model's cache, chunk by chunk, so that it can be cancelled.

    A short list is left to the segmenter.

    Args:
        request: its segmenter uses the model's cache of texts.
        model: the served model.
        active: called before each chunk; once it returns False, nothing more is encoded.

    Raises:
        ClassListError: a text longer than the text tower can read.
        ResourceError: memory ran out.
    """
    prompts = list(dict.fromkeys(p for item in (*request.classes, *request.background) for p in item.prompts))
    templates = load_templates(request.segmenter.settings.templates)
    size = max(1, _CHUNK_TEXTS // len(templates))
    prompts = model.texts.missing(request.segmenter.encoder.text_fingerprint(), templates, prompts)
    if len(prompts) <= size:
        return
    for first in range(0, len(prompts), size):
        if not active():
            return
        chunk = enumerate(prompts[first : first + size])
        request.segmenter.encode_text([ClassPrompt(f"text {number}", (prompt,)) for number, prompt in chunk])
