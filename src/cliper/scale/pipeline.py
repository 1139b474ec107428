"""One machine: threads read, the caller's thread runs the model, threads write."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from cliper.errors import InputError
from cliper.grouping import groups_of_one_size
from cliper.result import Segmentation
from cliper.scale.items import Item
from cliper.scale.job import Loaded, Worker
from cliper.scale.manifest import Record
from cliper.scale.reading import read_ahead
from cliper.scale.run import Run
from cliper.scale.turns import GivenUpError, Turn
from cliper.segmenter import Segmenter

__all__ = ["Timing", "run_here"]


@dataclass
class Timing:
    """Where the model's time went, in seconds.

    Args:
        model: it was at work.
        reading: it waited for pictures.
        writing: it waited for files to be written.
    """

    model: float = 0.0
    reading: float = 0.0
    writing: float = 0.0


def run_here(run: Run, segmenter: Segmenter, *, workers: int) -> Timing:
    """Do what is left of a run.

    However many pictures there are, few are in memory: those being read, a group or a few, and those being written.

    Args:
        run: the run.
        segmenter: the job's.
        workers: threads that read, and as many that write.

    Raises:
        CliperError: what ends the run; pictures that were done until then stay done.
        KeyboardInterrupt: likewise; of pictures whose files were being written there are none.
    """
    worker = Worker(run.job, segmenter, run.place)
    timing = Timing()
    for left in run.rounds():
        _round(run, left, worker, workers, timing)
    return timing


def _round(run: Run, left: Iterator[Item], worker: Worker, workers: int, timing: Timing) -> None:
    batch = worker.batch_size
    most = 2 * workers + batch
    writing: deque[Future[None]] = deque()
    turns: deque[Turn] = deque()

    def write(item: Item, result: Segmentation, seconds: float, turn: Turn) -> None:
        try:
            record = turn.do(lambda: worker.write(item, result, seconds))
        except GivenUpError:
            worker.remove(item)
        else:
            run.add(item.number, record)

    loaded = read_ahead(left, threads=workers, ahead=workers + batch)
    groups = groups_of_one_size(_readable(loaded, run), batch, lambda one: one.size)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="cliper-write")
    try:
        while True:
            started = time.perf_counter()
            group = next(groups, None)
            read = time.perf_counter()
            if group is None:
                break
            done = worker.segment(group)
            segmented = time.perf_counter()
            for one, result, seconds in done:
                if isinstance(result, str):
                    run.add(one.item.number, Record.failed(one.item.name, result, round(one.seconds + seconds, 4)))
                else:
                    turns.append(Turn())
                    writing.append(pool.submit(write, one.item, result, one.seconds + seconds, turns[-1]))
            while len(writing) > most or (writing and writing[0].done()):
                writing.popleft().result()
                turns.popleft()
            timing.reading += read - started
            timing.model += segmented - read
            timing.writing += time.perf_counter() - segmented
    except InputError:  # the source ends in the middle: what was segmented is written all the same
        _drain(writing)
        raise
    except KeyboardInterrupt:  # who presses Ctrl-C does not want to wait for large pictures
        for turn in turns:
            turn.give_up()
        raise
    else:
        _drain(writing)
    finally:
        loaded.close()
        pool.shutdown(wait=True, cancel_futures=True)  # those that are being written are finished


def _drain(writing: deque[Future[None]]) -> None:
    while writing:
        writing.popleft().result()


def _readable(pictures: Iterator[Loaded], run: Run) -> Iterator[Loaded]:
    """Those that could be read; the others are written down."""
    for loaded in pictures:
        if loaded.error is None:
            yield loaded
        else:
            run.add(loaded.item.number, Record.failed(loaded.item.name, loaded.error, round(loaded.seconds, 4)))
