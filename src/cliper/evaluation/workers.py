"""An evaluation by one process or several, which goes on where an earlier run stopped.

Worker i of n takes every n-th of the pictures that are left. Each writes records to a file of its own; what counts in
the end is the set of records by picture, so neither a kill nor another number of workers changes the matrix.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import queue
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliper.benchmarks import Sample
from cliper.errors import CliperError, InputError, ResourceError
from cliper.evaluation.job import Job, differences
from cliper.evaluation.provenance import peak_memory
from cliper.evaluation.records import Record, RecordLog, read_records
from cliper.evaluation.runner import Timing, evaluate_samples

__all__ = ["Outcome", "claim_folder", "evaluate"]

_RUN = "run.json"


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


def claim_folder(folder: Path, identity: dict[str, Any]) -> None:
    """Write down what is evaluated, or check that a run that is there evaluates the same.

    Raises:
        InputError: the folder holds another evaluation; the message says what differs.
        OutputError: it cannot be written.
    """
    from cliper.formats import atomic_path

    path = folder / _RUN
    plain = json.loads(json.dumps(identity))
    if path.is_file():
        try:
            old = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise InputError(f"{path}: cannot be read; choose another folder with --out, or delete this one") from None
        changed = differences(old, plain)
        if changed:
            raise InputError(
                f"{folder} holds another evaluation (it differs in {', '.join(changed[:4])}); "
                f"choose another folder with --out, or delete this one"
            )
        return
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder; a lock of the system's, which a killed process lets go.

    Raises:
        InputError: another run is at work there.
    """
    try:
        import fcntl
    except ImportError:  # a system without such locks
        yield
        return
    with (folder / _RUN).open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{folder}: another run is at work there; wait for it, or choose another folder with --out"
            ) from None
        except OSError:  # a file system without locks
            pass
        yield


def evaluate(
    job: Job, samples: Sequence[Sample], folder: Path, *, workers: int = 1, seen: Callable[[Record], None]
) -> Outcome:
    """Evaluate what is not yet in the folder.

    Args:
        job: what to evaluate.
        samples: the job's pictures.
        folder: where records are kept, claimed by :func:`claim_folder`.
        workers: processes; on GPUs one each, on a CPU each with its share of the cores.
        seen: called with every record, those of earlier runs first.

    Raises:
        InputError: fewer than one worker; another run is at work in the folder.
        CliperError: whatever ends the run; what was done until then is kept.
    """
    if workers < 1:
        raise InputError(f"workers: expected at least 1, got {workers}")
    with _alone(folder):
        return _evaluate(job, samples, folder, workers, seen)


def _evaluate(
    job: Job, samples: Sequence[Sample], folder: Path, workers: int, seen: Callable[[Record], None]
) -> Outcome:
    known = read_records(folder)
    done = {name for name, record in known.items() if record.error is None}
    left = [sample for sample in samples if sample.name not in done]
    for sample in samples:
        if sample.name in done:
            seen(known[sample.name])
    timing, peak = Timing(), peak_memory()
    if left:
        if min(workers, len(left)) == 1:
            timing, peak = _work(job, left, folder, 0, seen)
        else:
            timing, peak = _spread(job, left, folder, min(workers, len(left)), seen)
        known = read_records(folder)
    return Outcome([known[sample.name] for sample in samples], timing, len(left), peak)


def _work(
    job: Job,
    samples: Sequence[Sample],
    folder: Path,
    number: int,
    seen: Callable[[Record], None],
    device: str | None = None,
) -> tuple[Timing, dict[str, int]]:
    benchmark = job.benchmark()
    with RecordLog(folder, number) as log:

        def emit(record: Record) -> None:
            log.add(record)
            seen(record)

        segmenters = job.load(device)
        timing = evaluate_samples(
            benchmark, samples, segmenters, emit, decoders=job.decoders, skip_errors=job.skip_errors
        )
    return timing, peak_memory()


def _spread(
    job: Job, samples: Sequence[Sample], folder: Path, workers: int, seen: Callable[[Record], None]
) -> tuple[Timing, dict[str, int]]:
    import torch

    context = multiprocessing.get_context("spawn")  # a forked child cannot use CUDA, nor PyTorch's threads
    messages: Any = context.Queue()
    threads = max(1, torch.get_num_threads() // workers)
    processes = [
        context.Process(
            target=_child,
            args=(job, samples[i::workers], folder, i, threads, _device(job, i), messages),
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
    job: Job, samples: Sequence[Sample], folder: Path, number: int, threads: int, device: str | None, messages: Any
) -> None:
    """A worker's process."""
    import torch

    torch.set_num_threads(threads)
    try:
        done = _work(job, samples, folder, number, lambda record: messages.put(("record", number, record)), device)
    except KeyboardInterrupt:  # the parent was interrupted too, and says so
        return
    except CliperError as error:
        messages.put(("failed", number, type(error)(str(error))))
    else:
        messages.put(("done", number, done))


def _device(job: Job, number: int) -> str | None:
    """Each worker's own GPU, where none was named and there are several."""
    import torch

    if job.device not in (None, "cuda") or not torch.cuda.is_available():
        return None
    return f"cuda:{number % torch.cuda.device_count()}"
