"""A run: which images are left to do, and what became of the others."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cliper.errors import ImageError, InputError
from cliper.runner.items import Source
from cliper.runner.manifest import CONFLICT, DAMAGED, Manifest, Record
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
    waiting_seconds: float = 0.0  # the model waited for images, or for images to be recorded
    peak_memory: Mapping[str, int] = field(default_factory=dict)  # bytes by kind, the largest of any worker

    def __add__(self, other: EngineStats) -> EngineStats:
        return EngineStats(
            self.model_seconds + other.model_seconds,
            self.waiting_seconds + other.waiting_seconds,
            {**self.peak_memory, **{k: max(v, self.peak_memory.get(k, 0)) for k, v in other.peak_memory.items()}},
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


@dataclass(eq=False)
class Run:
    """A run in progress; ``on_record`` is that of a :class:`Monitor`."""

    task: Task
    source: Source
    run_dir: RunDir
    manifest: Manifest
    on_record: Callable[[Record, bool], None]
    options: RunOptions
    counts: Counts = field(default_factory=Counts)
    stats: EngineStats = field(default_factory=EngineStats)
    summary: Mapping[str, Any] = field(default_factory=dict)
    source_error: InputError | None = None  # why the source ended in the middle; the images before are processed
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def pending(self) -> Iterator[Any]:
        """The items that must be processed, while the source is listed; the others are recorded."""
        owners: dict[int, str] = {}  # by hash of the output key: name of the first image
        for item in self._items():
            key = hash(output_key(self.task, item.name))
            if key in owners:
                name = item.name if item.name != owners[key] else f"{item.name}#{item.number}"
                advice = "rename one of them, or leave one out with --glob"
                self.add(item.number, Record.failed(name, f"{CONFLICT}{owners[key]}; {advice}"))
                continue
            owners[key] = item.name
            known = self.manifest.find(item.name)
            if known is not None and self._is_finished(item, known):
                self.manifest.keep(item.number, item.name)
                self._count(known, new=False)
                continue
            problem = item.error or self.task.check_name(item.name)
            if problem is None:
                self.run_dir.abort_uploads(self.task.outputs(item.name))
                yield item
            else:
                self.add(item.number, Record.failed(item.name, problem))

    def add(self, number: int, record: Record) -> None:
        """Write the record of an image, from any thread. Raises ImageError if it failed and that ends the run."""
        if self.options.stop_on_error and not record.is_done:
            raise ImageError(f"{record.input}: {record.error}")
        self.manifest.add(number, record)
        self._count(record, new=True)
        self.run_dir.sync()

    def _items(self) -> Iterator[Any]:
        try:
            yield from self.source.items()
        except InputError as error:
            self.source_error = error

    def _count(self, record: Record, *, new: bool) -> None:
        with self._lock:
            if not record.is_done:
                self.counts.failed += 1
            elif new:
                self.counts.done += 1
            else:
                self.counts.skipped += 1
            self.on_record(record, new)

    def _is_finished(self, item: Any, record: Record) -> bool:
        if not record.is_done:
            return not (self.options.retry_failed or record.has_failed_by(DAMAGED))
        return self.task.is_current(item, record, self.run_dir.storage)


def output_key(task: Task, name: str) -> str:
    """From an image's name to what its files' names depend on."""
    return "/".join(task.outputs(name)) or name


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
    """Run a task over a source. Images that were finished before an exception stay finished.

    Args:
        uri: the run's folder; path or address.
        config: all that the results depend on, as plain values; a run can only be resumed with the same.
        engine: processes the images.
        monitor: entered once the models are loaded.
        finish: writes the files about all images into ``run.run_dir.folder``; returns their paths, and a summary for
            ``run.json``.

    Returns:
        The run, and the addresses of the files about all images, the manifest first.
    """
    resume = options.resume or options.retry_failed
    with open_run_dir(uri) as run_dir:
        run_dir.check(task.name, config, resume=resume, overwrite=options.overwrite)
        with engine as process, run_dir.locked():
            try:
                run_dir.start(task.name, config, overwrite=options.overwrite)
                with Manifest(run_dir.manifest, functools.partial(output_key, task)) as manifest, monitor:
                    run = Run(task, source, run_dir, manifest, monitor.on_record, options)
                    run.stats = process(run)
                    if run.source_error is not None:
                        raise run.source_error
                    paths, run.summary = finish(run)
                    manifest.finish()
                    return run, run_dir.finish(paths, run.summary)
            except BaseException as error:
                if not options.temporary:
                    error.add_note("finished images are kept; the same command with --resume continues")
                raise
