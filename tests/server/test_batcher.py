"""The dynamic batcher: requests with equal keys share a batch, and inactive ones are not computed."""

from __future__ import annotations

import gc
import io
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from cliper.errors import ResourceError
from cliper.segmenter import Segmenter
from cliper.server.batcher import DynamicBatcher, PendingRequest, Prediction
from cliper.server.limits import Limits
from cliper.server.metrics import Metrics
from cliper.server.models import ServedModel
from cliper.server.request import build_request
from cliper.server.schemas import SegmentParams


def pending_for(model: ServedModel, image: bytes, *classes: str, seconds: float = 60) -> list[PendingRequest]:
    requests = [build_request(model, image, SegmentParams(classes=one)) for one in classes]
    return [PendingRequest(request, time.monotonic() + seconds) for request in requests]


def batcher(model: ServedModel, window: float = 0, metrics: Metrics | None = None) -> DynamicBatcher:
    return DynamicBatcher(model, window=window, metrics=metrics or Metrics())


@pytest.fixture
def make_model(tiny: Segmenter) -> Callable[[int], ServedModel]:
    return lambda batch: ServedModel(tiny, Limits(), batch=batch)


def test_cancelled_request_is_removed_from_the_queue(
    make_model: Callable[[int], ServedModel], image_file: bytes
) -> None:
    model = make_model(4)
    line = batcher(model, window=30)
    with line:
        cancelled, other = pending_for(model, image_file, "dog", "dog")
        line.put(cancelled)
        line.put(other)
        assert cancelled.future.cancel()
        assert line._queue == [other]
    assert other.future.result(30).result.classes == ("dog",)


def test_requests_with_equal_keys_share_a_batch(
    make_model: Callable[[int], ServedModel], image_file: bytes, gate: Any
) -> None:
    model = make_model(4)
    with batcher(model) as line:
        first, *others = pending_for(model, image_file, *["cat"] * 4, "dog", *["cat"] * 2)
        line.put(first)
        gate.wait_for_model()
        for pending in others:
            line.put(pending)
        gate.open.set()
        done = [pending.future.result(30) for pending in (first, *others)]
    # The first was alone; of the others, those like the oldest came first.
    assert gate.groups == [1, 4, 1, 1]
    assert [one.result.classes for one in done] == [("cat",)] * 4 + [("dog",)] + [("cat",)] * 2


def test_results_of_a_batch_are_those_of_single_requests(
    make_model: Callable[[int], ServedModel], make_picture: Callable[..., Image.Image], gate: Any
) -> None:
    def file(seed: int) -> bytes:
        stream = io.BytesIO()
        make_picture(seed=seed).save(stream, "PNG")
        return stream.getvalue()

    gate.open.set()
    model = make_model(4)
    batch = [pending_for(model, file(seed), "cat; dog")[0] for seed in range(4)]
    with batcher(model, window=30) as line:  # the fourth ends the wait
        for pending in batch:
            line.put(pending)
        results = [pending.future.result(30).result for pending in batch]
    assert gate.groups == [4]
    for seed, result in enumerate(results):
        (expected,) = model.segment([pending_for(model, file(seed), "cat; dog")[0].request])
        assert (result.labels == expected.labels).mean() > 0.99  # sums of a batch differ in their last bits


def test_batch_of_one_does_not_wait_for_others(
    make_model: Callable[[int], ServedModel], image_file: bytes, gate: Any
) -> None:
    gate.open.set()
    model = make_model(1)
    with batcher(model, window=1000) as line:
        (pending,) = pending_for(model, image_file, "cat")
        line.put(pending)
        assert isinstance(pending.future.result(30), Prediction)


def test_late_and_cancelled_requests_are_not_computed(
    make_model: Callable[[int], ServedModel], image_file: bytes, gate: Any
) -> None:
    metrics, model = Metrics(), make_model(1)
    with batcher(model, metrics=metrics) as line:
        (first,) = pending_for(model, image_file, "cat")
        (late,) = pending_for(model, image_file, "dog", seconds=0)
        (cancelled,) = pending_for(model, image_file, "dog")
        for pending in (first, late, cancelled):
            line.put(pending)
        gate.wait_for_model()
        assert cancelled.future.cancel()
        gate.open.set()
        first.future.result(30)
    assert late.future.cancelled()
    assert gate.groups == [1]
    assert b"cliper_dropped_total 2.0" in metrics.text()


def test_failed_batch_is_computed_one_by_one(
    make_model: Callable[[int], ServedModel], image_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Segmenter.__call__

    def small(self: Segmenter, image: Any, *rest: Any) -> Any:
        if len(image) > 1:
            raise ResourceError("out of memory")
        return real(self, image, *rest)

    monkeypatch.setattr(Segmenter, "__call__", small)
    model = make_model(2)
    batch = pending_for(model, image_file, "cat", "cat")
    with batcher(model, window=30) as line:
        for pending in batch:
            line.put(pending)
        assert all(isinstance(pending.future.result(30), Prediction) for pending in batch)


@pytest.mark.parametrize("error", [ResourceError("out of memory"), KeyError("a defect"), SystemExit(3)])
def test_thread_survives_an_error(
    make_model: Callable[[int], ServedModel], image_file: bytes, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: Any) -> Any:
        raise error

    model = make_model(1)
    first, second = pending_for(model, image_file, "cat", "cat")
    with batcher(model) as line:
        with monkeypatch.context() as patch:
            patch.setattr(Segmenter, "__call__", fail)
            line.put(first)
            assert first.future.exception(30) is error
        line.put(second)
        assert isinstance(second.future.result(30), Prediction)


def test_exit_computes_the_queue(make_model: Callable[[int], ServedModel], image_file: bytes, gate: Any) -> None:
    model = make_model(1)
    queue = pending_for(model, image_file, "cat", "dog", "cow")
    line = batcher(model)
    with line:
        for pending in queue:
            line.put(pending)
        gate.open.set()
    assert all(isinstance(pending.future.result(0), Prediction) for pending in queue)
    with pytest.raises(RuntimeError, match="closed"):
        line.put(queue[0])


def test_image_is_freed_with_the_result(make_model: Callable[[int], ServedModel], image_file: bytes) -> None:
    """Not by the garbage collector, which would keep the memory of large images for a while."""
    model = make_model(1)
    with batcher(model) as line:
        (pending,) = pending_for(model, image_file, "cat")
        image, future = weakref.ref(pending.request.image), pending.future
        gc.collect()
        gc.disable()
        try:
            line.put(pending)
            assert future.result(30).result.classes == ("cat",)
            del pending, future
            line.__exit__()  # the thread has ended
            assert image() is None
        finally:
            gc.enable()
