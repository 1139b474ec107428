"""The dynamic batcher: requests with equal keys share a batch, and cancelled ones are not computed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from prometheus_client import generate_latest
from server_in_process import png

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


@pytest.mark.parametrize(("most", "groups"), [(4, [4]), (1, [4, 1, 1, 1, 1])], ids=["at once", "one by one"])
def test_results_of_a_batch_are_those_of_single_requests(
    run: Any, make_request: Any, make_image: Any, tiny: Segmenter, monkeypatch: Any, most: int, groups: list[int]
) -> None:
    """One by one if memory does not suffice for the batch."""
    images, found, real = [make_image(seed=seed) for seed in range(4)], [], Segmenter.__call__
    expected = [tiny(image, ["cat", "dog"]) for image in images]

    def limited(self: Segmenter, given: Any, *rest: Any) -> Any:
        found.append(len(given))
        if len(given) > most:
            raise ResourceError("out of memory")
        return real(self, given, *rest)

    async def body(batcher: DynamicBatcher) -> list[Any]:
        return await asyncio.gather(*(batcher.segment(make_request("cat; dog", png(image))) for image in images))

    monkeypatch.setattr(Segmenter, "__call__", limited)
    results, _ = run(body, batch=4, window=30)
    assert found == groups
    for (result, _), single in zip(results, expected, strict=True):
        assert np.array_equal(result.labels, single.labels)
        assert result.confidence == pytest.approx(single.confidence, rel=1e-5)  # float32 sums in another order


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


@pytest.mark.parametrize("error", [ResourceError("out of memory"), KeyError("a defect")])
def test_queue_continues_after_an_error(
    run: Any, make_request: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> Any:
        raise error

    async def body(batcher: DynamicBatcher) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Segmenter, "__call__", fail)
            with pytest.raises(type(error)):
                await batcher.segment(make_request("cat"))
        await batcher.segment(make_request("cat"))

    run(body, batch=1)
