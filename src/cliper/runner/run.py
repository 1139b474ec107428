"""A run: which images are left to do, and what became of the others."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cliper.errors import ImageError
from cliper.runner.items import Source
from cliper.runner.manifest import Manifest, Record
from cliper.runner.run_dir import RunDir, open_run_dir
from cliper.runner.task import Task

__all__ = ["Counts", "Engine", "EngineStats", "Monitor", "Run", "RunOptions", "run_task"]


@dataclass
class Counts:
    """Numbers of images."""

    done: int = 0  # in this run
    failed: int = 0  # in this run or, if they are not tried again, an earlier one
    skipped: int = 0  # done by an earlier run

    @property
    def total(self) -> int:
        """All of them."""
        return self.done + self.failed + self.skipped


@dataclass(frozen=True)
class EngineStats:
    """What an engine used, summed over its workers."""

    model_seconds: float = 0.0
    read_seconds: float = 0.0  # the model waited for images
    write_seconds: float = 0.0  # the model waited for images to be recorded
    peak_memory: Mapping[str, int] = field(default_factory=dict)  # bytes by kind, the largest of any worker

    def __add__(self, other: EngineStats) -> EngineStats:
        kinds = {*self.peak_memory, *other.peak_memory}
        return EngineStats(
            self.model_seconds + other.model_seconds,
            self.read_seconds + other.read_seconds,
            self.write_seconds + other.write_seconds,
            {kind: max(self.peak_memory.get(kind, 0), other.peak_memory.get(kind, 0)) for kind in sorted(kinds)},
        )


@dataclass(frozen=True)
class RunOptions:
    """How a run deals with an earlier one in its folder, and with failures."""

    resume: bool = False  # continue it; images that failed stay failed
    retry_failed: bool = False  # continue it, and try images that failed again
    overwrite: bool = False  # start again; its files are removed
    stop_on_error: bool = False  # end the run at the first image that fails
    temporary: bool = False  # the folder is removed after the run, which cannot be resumed then


class Monitor(AbstractContextManager[Any], Protocol):
    """Watches a run."""

    def on_record(self, record: Record, new: bool) -> None:
        """Called with each record, and whether it is of this run; from any thread, one call at a time."""


class Run:
    """A run in progress; ``on_record`` is that of a :class:`Monitor`."""

    def __init__(
        self,
        task: Task,
        source: Source,
        run_dir: RunDir,
        manifest: Manifest,
        on_record: Callable[[Record, bool], None],
        options: RunOptions,
    ) -> None:
        self.task, self.source, self.run_dir, self.manifest = task, source, run_dir, manifest
        self.storage = run_dir.storage
        self.counts, self.stats = Counts(), EngineStats()
        self.summary: Mapping[str, Any] = {}
        self._on_record, self._options = on_record, options
        self._lock = threading.Lock()

    def pending(self) -> Iterator[Any]:
        """The items that must be processed, while the source is listed; the others are recorded."""
        owners: dict[int, str] = {}  # by hash of the output key: name of the first image
        for item in self.source.items():
            key = hash(self.task.output_key(item.name))
            if key in owners:
                name = item.name if item.name != owners[key] else f"{item.name}#{item.number}"
                self.add(item.number, Record.conflict(name, owners[key]))
                continue
            owners[key] = item.name
            known = self.manifest.find(item.name)
            if known is not None and self._is_finished(item, known):
                self.manifest.keep(item.number, item.name)
                self._count(known, new=False)
                continue
            problem = item.error or self.task.check_name(item.name)
            if problem is None:
                yield item
            else:
                self.add(item.number, Record.failed(item.name, problem))

    def add(self, number: int, record: Record) -> None:
        """Write the record of an image, from any thread. Raises ImageError if it failed and that ends the run."""
        if self._options.stop_on_error and not record.is_done:
            raise ImageError(f"{record.input}: {record.error}")
        self.manifest.add(number, record)
        self._count(record, new=True)
        self.run_dir.sync()

    def _count(self, record: Record, *, new: bool) -> None:
        with self._lock:
            if not record.is_done:
                self.counts.failed += 1
            elif new:
                self.counts.done += 1
            else:
                self.counts.skipped += 1
            self._on_record(record, new)

    def _is_finished(self, item: Any, record: Record) -> bool:
        if not record.is_done:
            return not (self._options.retry_failed or record.is_damaged)
        return self.task.is_current(item, record, self.storage)


Engine = AbstractContextManager[Callable[[Run], EngineStats]]
"""Entering it loads the models, or connects to the machines that do; what it gives processes what is left of a run."""


def run_task(
    task: Task,
    source: Source,
    uri: str,
    config: Mapping[str, Any],
    engine: Engine,
    monitor: Monitor,
    finish: Callable[[Run], tuple[list[Path], Mapping[str, Any]]],
    options: RunOptions,
) -> tuple[Run, list[str]]:
    """Run a task over a source.

    Args:
        uri: the run's folder; path or address.
        config: all that the results depend on, as plain values; a run can only be resumed with the same.
        engine: processes the images.
        monitor: entered once the models are loaded.
        finish: writes the files about all images into ``run.run_dir.folder``; returns their paths, and a summary for
            ``run.json``.

    Returns:
        The run, and the addresses of the files about all images, the manifest first.

    Raises:
        CliperError: what ends the run; images that were finished before stay finished.
        KeyboardInterrupt: likewise; files that were being written are complete.
    """
    resume = options.resume or options.retry_failed
    with open_run_dir(uri) as run_dir:
        run_dir.check(task.name, config, resume=resume, overwrite=options.overwrite)
        with engine as process, run_dir.locked(), _resume_note(options):
            run_dir.start(task.name, config, overwrite=options.overwrite)
            with Manifest(run_dir.manifest, task.output_key) as manifest, monitor:
                run = Run(task, source, run_dir, manifest, monitor.on_record, options)
                run.stats = process(run)
                run_dir.sync(now=True)
                paths, run.summary = finish(run)
                run_dir.set_run_files([path.relative_to(run_dir.folder).as_posix() for path in paths], run.summary)
                manifest.finish()
                return run, run_dir.finish([manifest.path, *paths])


@contextlib.contextmanager
def _resume_note(options: RunOptions) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if not options.temporary:
            error.add_note("finished images are kept; the same command with --resume continues")
        raise
