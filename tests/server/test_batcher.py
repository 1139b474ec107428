"""The dynamic batcher: requests with equal keys share a batch, and cancelled ones are not computed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from prometheus_client import generate_latest

from cliper.errors import ResourceError
from cliper.segmenter import Segmenter
from cliper.server.models import Limits, PreparedRequest, ServedModel
from cliper.server.schemas import SegmentRequest
from cliper.server.service import DynamicBatcher, Metrics

Body = Callable[[DynamicBatcher], Coroutine[Any, Any, Any]]


@pytest.fixture
def run(tiny: Segmenter) -> Callable[..., Any]:
    """Run a coroutine function with a batcher; its result, and the metrics."""

    def run(body: Body, *, batch: int, window: float = 0) -> tuple[Any, str]:
        metrics = Metrics()
        model = ServedModel(tiny, Limits(), batch=batch, cached_bytes=0)
        batcher = DynamicBatcher(model, window=window, metrics=metrics)
        try:
            found = asyncio.run(asyncio.wait_for(body(batcher), 60))
            return found, generate_latest(metrics.registry).decode()
        finally:
            batcher.close()

    return run


@pytest.fixture
def make_request(tiny: Segmenter, image_file: bytes) -> Callable[..., PreparedRequest]:
    model = ServedModel(tiny, Limits(), batch=4)
    return lambda classes, image=image_file: model.prepare(SegmentRequest(classes=classes, image=image))


def test_requests_with_equal_keys_share_a_batch(run: Any, make_request: Any, gate: Any) -> None:
    async def body(batcher: DynamicBatcher) -> list[tuple[str, ...]]:
        first = asyncio.ensure_future(batcher.segment(make_request("cat")))
        await asyncio.to_thread(gate.wait_for_model)
        others = [batcher.segment(make_request(name)) for name in ["cat"] * 3 + ["dog"] + ["cat"] * 2]
        tasks = [first, *map(asyncio.ensure_future, others)]
        await asyncio.sleep(0)
        gate.open.set()
        return [result.classes for result, _ in await asyncio.gather(*tasks)]

    found, _ = run(body, batch=4)
    # The first was alone; of the others, those like the oldest came first.
    assert gate.groups == [1, 4, 1, 1]
    assert found == [("cat",)] * 4 + [("dog",)] + [("cat",)] * 2


def test_batch_of_one_does_not_wait_for_others(run: Any, make_request: Any) -> None:
    run(lambda batcher: batcher.segment(make_request("cat")), batch=1, window=1000)


def test_cancelled_request_is_not_computed(run: Any, make_request: Any, gate: Any) -> None:
    async def body(batcher: DynamicBatcher) -> None:
        first = asyncio.ensure_future(batcher.segment(make_request("cat")))
        await asyncio.to_thread(gate.wait_for_model)
        cancelled = asyncio.ensure_future(batcher.segment(make_request("dog")))
        last = asyncio.ensure_future(batcher.segment(make_request("cow")))
        await asyncio.sleep(0)
        cancelled.cancel()
        gate.open.set()
        await asyncio.gather(first, last)
        with pytest.raises(asyncio.CancelledError):
            await cancelled

    _, metrics = run(body, batch=1)
    assert gate.groups == [1, 1]
    assert "cliper_dropped_total 1.0" in metrics


def test_failed_batch_is_computed_one_by_one(run: Any, make_request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Segmenter.__call__

    def small(self: Segmenter, image: Any, *rest: Any) -> Any:
        if len(image) > 1:
            raise ResourceError("out of memory")
        return real(self, image, *rest)

    monkeypatch.setattr(Segmenter, "__call__", small)

    async def body(batcher: DynamicBatcher) -> list[Any]:
        return await asyncio.gather(*(batcher.segment(make_request("cat")) for _ in range(2)))

    found, _ = run(body, batch=2, window=30)
    assert len(found) == 2


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ResourceError("out of memory"), ResourceError),
        (KeyError("a defect"), KeyError),
        (SystemExit(3), RuntimeError),
        (KeyboardInterrupt(), RuntimeError),
    ],
)
def test_queue_continues_after_an_error(
    run: Any, make_request: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, expected: type[Exception]
) -> None:
    def fail(*_: Any) -> Any:
        raise error

    async def body(batcher: DynamicBatcher) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Segmenter, "__call__", fail)
            with pytest.raises(expected):
                await batcher.segment(make_request("cat"))
        await batcher.segment(make_request("cat"))

    run(body, batch=1)
