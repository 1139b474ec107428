"""The line before the model: those alike go together, and nothing is done for those who have gone."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from cliper.errors import ResourceError
from cliper.segmenter import Segmenter
from cliper.web.service.line import Done, Job, Line
from cliper.web.service.metrics import Metrics
from cliper.web.service.schema import Wishes
from cliper.web.service.served import Served
from cliper.web.service.wish import make_wish


def nothing(*_: object) -> None:
    """No preparation."""


def jobs_of(served: Served, image: bytes, *classes: str, seconds: float = 60) -> list[Job]:
    wishes = [make_wish(served, image, Wishes(classes=one)) for one in classes]
    return [Job(wish, time.monotonic() + seconds) for wish in wishes]


@pytest.fixture
def served(tiny: Segmenter, start: Any) -> Served:
    found: Served = start(batch=4).service.served
    return found


def test_a_job_whose_client_has_gone_is_let_go_before_its_turn(served: Served, picture_file: bytes) -> None:
    line = Line(batch=4, window=30, metrics=Metrics(), prepare=nothing)
    with line:
        gone, stays = jobs_of(served, picture_file, "dog", "dog")
        line.put(gone)
        line.put(stays)
        assert gone.future.cancel()
        assert line._waiting == [stays]  # and with it goes its picture
    assert stays.future.result(30).result.classes == ("dog",)


def test_those_alike_go_together(served: Served, picture_file: bytes, gate: Any) -> None:
    metrics = Metrics()
    with Line(batch=4, window=0, metrics=metrics, prepare=nothing) as line:
        first, *others = jobs_of(served, picture_file, *["cat"] * 4, "dog", *["cat"] * 2)
        line.put(first)
        gate.wait_for_model()
        for job in others:
            line.put(job)
        gate.open.set()
        done = [job.future.result(30) for job in (first, *others)]
    # The first was alone; of the others those like the one that had waited longest came first.
    assert gate.groups == [1, 4, 1, 1]
    assert [one.result.classes for one in done] == [("cat",)] * 4 + [("dog",)] + [("cat",)] * 2


def test_together_they_get_what_each_would_get_alone(
    served: Served, make_picture: Callable[..., Image.Image], gate: Any
) -> None:
    import io

    def file(seed: int) -> bytes:
        stream = io.BytesIO()
        make_picture(seed=seed).save(stream, "PNG")
        return stream.getvalue()

    gate.open.set()
    jobs = [jobs_of(served, file(seed), "cat; dog")[0] for seed in range(4)]
    with Line(batch=4, window=30, metrics=Metrics(), prepare=nothing) as line:  # the fourth ends the wait
        for job in jobs:
            line.put(job)
        together = [job.future.result(30).result for job in jobs]
    assert gate.groups == [4]
    for seed, result in enumerate(together):
        (alone,) = jobs_of(served, file(seed), "cat; dog")
        expected = alone.wish.segmenter([alone.wish.picture], list(alone.wish.classes), list(alone.wish.background))
        assert (result.labels == expected[0].labels).mean() > 0.99  # sums of a batch differ in their last bits


def test_a_window_is_not_waited_out_where_the_model_takes_one(served: Served, picture_file: bytes, gate: Any) -> None:
    gate.open.set()
    with Line(batch=1, window=1000, metrics=Metrics(), prepare=nothing) as line:
        (job,) = jobs_of(served, picture_file, "cat")
        line.put(job)
        assert isinstance(job.future.result(30), Done)


def test_those_whose_time_is_over_are_not_computed(served: Served, picture_file: bytes, gate: Any) -> None:
    metrics = Metrics()
    with Line(batch=1, window=0, metrics=metrics, prepare=nothing) as line:
        (first,) = jobs_of(served, picture_file, "cat")
        (late,) = jobs_of(served, picture_file, "dog", seconds=0)
        (gone,) = jobs_of(served, picture_file, "dog")
        for job in (first, late, gone):
            line.put(job)
        gate.wait_for_model()
        assert gone.future.cancel()
        gate.open.set()
        first.future.result(30)
    assert late.future.cancelled()
    assert gate.groups == [1]
    assert b"cliper_dropped_total 2.0" in metrics.text()


def test_a_group_that_fails_is_tried_one_by_one(
    served: Served, picture_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Segmenter.__call__

    def small(self: Segmenter, image: Any, *rest: Any) -> Any:
        if len(image) > 1:
            raise ResourceError("out of memory")
        return real(self, image, *rest)

    monkeypatch.setattr(Segmenter, "__call__", small)
    jobs = jobs_of(served, picture_file, "cat", "cat")
    with Line(batch=2, window=30, metrics=Metrics(), prepare=nothing) as line:
        for job in jobs:
            line.put(job)
        assert all(isinstance(job.future.result(30), Done) for job in jobs)


@pytest.mark.parametrize("error", [ResourceError("out of memory"), KeyError("a defect"), SystemExit(3)])
def test_an_error_is_that_jobs_and_the_line_goes_on(
    served: Served, picture_file: bytes, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: Any) -> Any:
        raise error

    first, second = jobs_of(served, picture_file, "cat", "cat")
    with Line(batch=1, window=0, metrics=Metrics(), prepare=nothing) as line:
        with monkeypatch.context() as patch:
            patch.setattr(Segmenter, "__call__", fail)
            line.put(first)
            assert first.future.exception(30) is error
        line.put(second)
        assert isinstance(second.future.result(30), Done)


def test_a_line_ends_with_its_last_job(served: Served, picture_file: bytes, gate: Any) -> None:
    jobs = jobs_of(served, picture_file, "cat", "dog", "cow")
    line = Line(batch=1, window=0, metrics=Metrics(), prepare=nothing)
    with line:
        for job in jobs:
            line.put(job)
        gate.open.set()
    assert all(isinstance(job.future.result(0), Done) for job in jobs)
    with pytest.raises(RuntimeError, match="closed"):
        line.put(jobs[0])


def test_those_that_nobody_waits_for_after_the_preparation_are_not_computed(
    served: Served, picture_file: bytes, gate: Any
) -> None:
    gate.open.set()
    metrics = Metrics()
    told: list[bool] = []

    def prepare(_: object, wanted: Callable[[], bool]) -> None:
        told.append(wanted())
        gone.gone = True
        told.append(wanted())
        stays.gone = len(told) > 2
        told.append(wanted())

    with Line(batch=2, window=30, metrics=metrics, prepare=prepare) as line:
        gone, stays = jobs_of(served, picture_file, "cat", "cat")
        line.put(gone)
        line.put(stays)
        assert stays.future.result(30).result.classes == ("cat",)
        with pytest.raises(TimeoutError):
            gone.future.result(30)
        gone, stays = jobs_of(served, picture_file, "cat", "cat")
        line.put(gone)
        line.put(stays)
        with pytest.raises(TimeoutError):
            stays.future.result(30)
    assert told == [True, True, True, True, True, False]
    assert gate.groups == [1]
    assert b"cliper_dropped_total 3.0" in metrics.text()


def test_a_picture_is_let_go_at_once(served: Served, picture_file: bytes) -> None:
    """Not when Python next looks for what holds each other, which with large pictures is a lot of memory later."""
    with Line(batch=1, window=0, metrics=Metrics(), prepare=nothing) as line:
        (job,) = jobs_of(served, picture_file, "cat")
        picture, result = weakref.ref(job.wish.picture), job.future
        gc.collect()
        gc.disable()
        try:
            line.put(job)
            assert result.result(30).result.classes == ("cat",)
            del job, result
            line.__exit__()  # the thread has let go of it, too
            assert picture() is None
        finally:
            gc.enable()
