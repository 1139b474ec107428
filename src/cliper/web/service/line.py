"""Requests wait in line for the model; those alike go through it together."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cliper.errors import CliperError
from cliper.web.service.wish import Wish

if TYPE_CHECKING:
    from cliper.result import Segmentation
    from cliper.web.service.metrics import Metrics

__all__ = ["Done", "Job", "Line"]

Prepare = Callable[[Wish, Callable[[], bool]], None]


@dataclass(frozen=True, eq=False)
class Done:
    """What came of a wish.

    Args:
        result: the segmentation.
        seconds: that the model took, for all that went through it together.
    """

    result: Segmentation
    seconds: float


@dataclass(eq=False)
class Job:
    """A wish that waits.

    Args:
        wish: what to do.
        deadline: of ``time.monotonic``; after it nobody wants the result, and it is not computed.
        gone: set when nobody waits any more, before that.
    """

    wish: Wish
    deadline: float
    gone: bool = False
    arrived: float = field(default_factory=time.monotonic)
    future: Future[Done] = field(default_factory=Future)

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for the result."""
        return not self.gone and time.monotonic() <= self.deadline


class Line:
    """One thread that runs the model, and who waits for it; as a context manager it ends with the last job.

    How many may wait is the business of who puts them here.

    Args:
        batch: jobs that go through the model together at most.
        window: seconds that the first of a group waits for others like it.
        metrics: are kept.
        prepare: called before the model sees a wish; it is to stop early when its second argument says that nobody
            waits any more.
    """

    def __init__(self, *, batch: int, window: float, metrics: Metrics, prepare: Prepare) -> None:
        self._batch, self._window, self._metrics, self._prepare = batch, window, metrics, prepare
        self._waiting: list[Job] = []
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="cliper-model", daemon=True)
        self.seconds_each = 0.5
        """About what a picture takes, from the last ones."""

    def __enter__(self) -> Line:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def put(self, job: Job) -> None:
        """Wait for the model; cancelling the job's future takes it out of the line."""
        with self._changed:
            if self._closed:
                raise RuntimeError("the line is closed")
            self._waiting.append(job)
            self._changed.notify_all()
        known = weakref.ref(job)  # else job and future would hold each other, and a picture, until they are collected

        def forget(future: Future[Done]) -> None:
            gone = known()
            if gone is not None and future.cancelled():
                self._forget(gone)

        job.future.add_done_callback(forget)

    def _run(self) -> None:
        while group := self._next():
            live = [job for job in group if self._begin(job)]
            if live:
                self._work(live)
            del group, live  # pictures and results are not kept until the next ones come

    def _next(self) -> list[Job]:
        """The job that has waited longest and those like it; nothing once the line is closed and empty."""
        with self._changed:
            while True:
                while not self._waiting:
                    if self._closed:
                        return []
                    self._changed.wait()
                first = self._waiting[0]  # looked up anew after each wait: its client may have gone
                group = [job for job in self._waiting if job.wish.key == first.wish.key][: self._batch]
                left = first.arrived + self._window - time.monotonic()
                if len(group) >= self._batch or left <= 0 or self._closed:
                    self._waiting = [job for job in self._waiting if job not in group]
                    return group
                self._changed.wait(left)

    def _forget(self, job: Job) -> None:
        """Let go of a job that nobody wants any more, and of its picture, before its turn comes."""
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
                self._metrics.dropped.inc()

    def _begin(self, job: Job) -> bool:
        if not job.wanted:
            job.future.cancel()
        begun = job.future.set_running_or_notify_cancel()
        if not begun:
            self._metrics.dropped.inc()
        return begun

    def _still_wanted(self, jobs: Sequence[Job]) -> list[Job]:
        for job in jobs:
            if not job.wanted:
                self._metrics.dropped.inc()
                job.future.set_exception(TimeoutError())
        return [job for job in jobs if not job.future.done()]

    def _work(self, jobs: Sequence[Job]) -> None:
        wish = jobs[0].wish
        started = time.perf_counter()
        try:
            self._prepare(wish, lambda: any(job.wanted for job in jobs))
            jobs = self._still_wanted(jobs)
            if not jobs:
                return
            results = wish.segmenter([job.wish.picture for job in jobs], list(wish.classes), list(wish.background))
        except BaseException as error:  # whatever it is, the thread lives on, and nobody waits for ever
            if len(jobs) > 1 and isinstance(error, CliperError):  # too large together, say
                for job in jobs:
                    self._work([job])
                return
            for job in jobs:
                job.future.set_exception(error)
            return
        seconds = time.perf_counter() - started
        self._metrics.batches.observe(len(jobs))
        self._metrics.model_seconds.observe(seconds)
        self.seconds_each += 0.2 * (seconds / len(jobs) - self.seconds_each)
        for job, result in zip(jobs, results, strict=True):
            job.future.set_result(Done(result, seconds))
