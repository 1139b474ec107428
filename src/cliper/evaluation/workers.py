"""An evaluation by one process or several, which goes on where an earlier run stopped.

Worker i of n takes every n-th of the pictures that are left. Each writes records to a file of its own; what counts in
the end is the set of records by picture, so neither a kill nor another number of workers changes the matrix.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliper.datasets import Sample
from cliper.errors import CliperError, InputError, ResourceError
from cliper.evaluation.folder import claimed
from cliper.evaluation.job import Job
from cliper.evaluation.records import Record, RecordLog, files_state, read_records
from cliper.evaluation.runner import Timing, evaluate_samples
from cliper.provenance import peak_memory

__all__ = ["Outcome", "Spread", "evaluate"]

Spread = Callable[[Job, Sequence[Sample], Callable[[Record], None]], Timing]
"""Evaluates samples somewhere and calls back with each record."""


@dataclass(frozen=True)
class Outcome:
    """What an evaluation gave.

    Args:
        records: of every picture, in the order of the samples.
        timing: of this run, summed over its workers.
        new: how many of the pictures this run did; the others were there already.
        peak_memory: bytes by kind, the largest of any worker.
    """

    records: list[Record]
    timing: Timing
    new: int
    peak_memory: dict[str, int]


def evaluate(
    job: Job,
    samples: Sequence[Sample],
    folder: Path,
    identity: Mapping[str, Any],
    *,
    workers: int = 1,
    seen: Callable[[Record], None],
    spread: Spread | None = None,
) -> Outcome:
    """Evaluate what is not yet in the folder.

    Args:
        job: what to evaluate.
        samples: the job's pictures.
        folder: where records are kept.
        identity: the job's; a folder takes no other.
        workers: processes; on GPUs one each, on a CPU each with its share of the cores.
        seen: called with every record, those of earlier runs first.
        spread: what does the work in place of processes of this machine, and hands back each record.

    Raises:
        InputError: fewer than one worker; the folder holds another evaluation, or another run is at work there.
        CliperError: whatever ends the run; what was done until then is kept.
    """
    if workers < 1:
        raise InputError(f"workers: expected at least 1, got {workers}")
    with claimed(folder, identity) as run:
        states = {sample.name: files_state(sample.image, sample.mask) for sample in samples}
        known = read_records(folder, run, states)
        found = {name: record for name, record in known.items() if record.error is None}
        for record in list(found.values()):
            seen(record)
        left = [sample for sample in samples if sample.name not in found]

        def emit(record: Record) -> None:
            found[record.name] = record
            seen(record)

        timing, peak = Timing(), peak_memory()
        place = _Place(folder, run)
        if left and spread is not None:
            with RecordLog(folder, run) as log:

                def keep(record: Record) -> None:
                    log.add(record)
                    emit(record)

                timing = spread(job, left, keep)
        elif left and min(workers, len(left)) == 1:
            timing, peak = _work(job, left, place, 0, emit)
        elif left:
            timing, peak = _spread(job, left, place, min(workers, len(left)), emit)
        return Outcome([found[sample.name] for sample in samples], timing, len(left), peak)


@dataclass(frozen=True)
class _Place:
    """Where records go, and the run that they are of."""

    folder: Path
    run: str


def _work(
    job: Job,
    samples: Sequence[Sample],
    place: _Place,
    number: int,
    seen: Callable[[Record], None],
    device: str | None = None,
) -> tuple[Timing, dict[str, int]]:
    benchmark = job.benchmark()
    with RecordLog(place.folder, place.run, number) as log, job.float32_precision():

        def emit(record: Record) -> None:
            log.add(record)
            seen(record)

        segmenters = job.load(device)
        timing = evaluate_samples(
            benchmark, samples, segmenters, emit, decoders=job.decoders, skip_errors=job.skip_errors
        )
    return timing, peak_memory()


def _spread(
    job: Job, samples: Sequence[Sample], place: _Place, workers: int, seen: Callable[[Record], None]
) -> tuple[Timing, dict[str, int]]:
    import torch

    context = multiprocessing.get_context("spawn")  # a forked child cannot use CUDA, nor PyTorch's threads
    messages: Any = context.Queue()
    threads = max(1, torch.get_num_threads() // workers)
    processes = [
        context.Process(
            target=_child,
            args=(job, samples[i::workers], place, i, threads, _device(job, i), messages),
            daemon=True,
        )
        for i in range(workers)
    ]
    timing, running = Timing(), dict(enumerate(processes))
    peak: dict[str, int] = {}
    try:
        for process in processes:
            process.start()
        while running:
            try:
                kind, number, value = messages.get(timeout=1.0)
            except queue.Empty:
                for number, process in running.items():
                    if process.exitcode is not None and messages.empty():
                        raise ResourceError(
                            f"worker {number} ended with exit code {process.exitcode}, out of memory perhaps; "
                            "what was done is kept: start again, with fewer workers"
                        ) from None
                continue
            if kind == "record":
                seen(value)
            elif kind == "failed":
                raise value
            else:
                timing += value[0]
                peak = {name: max(peak.get(name, 0), size) for name, size in value[1].items()}
                running.pop(number)
    finally:
        for process in processes:
            with contextlib.suppress(ValueError, AttributeError):
                process.terminate()
        for process in processes:
            with contextlib.suppress(AssertionError):  # it was never started
                process.join()
    return timing, peak


def _child(
    job: Job, samples: Sequence[Sample], place: _Place, number: int, threads: int, device: str | None, messages: Any
) -> None:
    """A worker's process."""
    import torch

    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        done = _work(job, samples, place, number, lambda record: messages.put(("record", number, record)), device)
    except KeyboardInterrupt:  # the parent was interrupted too, and says so
        return
    except CliperError as error:
        messages.put(("failed", number, type(error)(str(error))))
    except Exception as error:  # a defect, which is to end the parent as one; not every exception can be pickled
        messages.put(("failed", number, RuntimeError(f"{type(error).__name__} in worker {number}: {error}")))
    else:
        messages.put(("done", number, done))


def _end_with_parent() -> None:
    """A parent that was killed can end nobody: whoever it has left behind ends itself, and lets the folder go."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _device(job: Job, number: int) -> str | None:
    """Each worker's own GPU, where none was named and there are several."""
    import torch

    if job.device not in (None, "cuda") or not torch.cuda.is_available():
        return None
    return f"cuda:{number % torch.cuda.device_count()}"
