"""Progress of a run on standard error: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

import click

from cliper.cli.errors import is_quiet, printable
from cliper.cli.tables import format_duration

if TYPE_CHECKING:
    from cliper.runner.manifest import Record

__all__ = ["Progress"]

_LOG = logging.getLogger("cliper.progress")
_LOG_INTERVAL = 30.0  # seconds between lines where there is no terminal
_MAX_ERRORS_SHOWN = 100
_RATE_SECONDS = 60.0  # the rate is that of the last so many seconds


class Progress:
    """Progress of a run, with rate, time left and failed images.

    Args:
        total: number of images, or a function that counts them, for a thread of its own; None if that cannot be known.
    """

    def __init__(self, total: int | Callable[[], int | None]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        self._count_images = None if isinstance(total, int) else total
        self._total = total if isinstance(total, int) else None
        self._count = self._failed = 0
        self.status = ""
        """Shown beside the counts, such as the mIoU so far."""
        self._started = self._logged = time.monotonic()
        console = Console(stderr=True)
        self._bar = Bar(
            TextColumn("images"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            console=console,
            disable=not console.is_terminal or is_quiet(),
            speed_estimate_period=_RATE_SECONDS,
            get_time=time.monotonic,
        )
        self._task = self._bar.add_task("", total=self._total, status="")

    def __enter__(self) -> Progress:
        self._started = self._logged = time.monotonic()
        self._bar.start()
        if self._count_images is not None:
            threading.Thread(target=self._find_total, name="cliper-count", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if self._failed > _MAX_ERRORS_SHOWN:
            self._echo(f"error: {self._failed - _MAX_ERRORS_SHOWN} more images failed")

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self._started

    def on_record(self, record: Record, new: bool) -> None:
        """Count an image.

        Args:
            record: its state.
            new: whether it is of this run; images of earlier runs do not count for the rate.
        """
        if new and record.is_done:
            _LOG.info("%s: %.2f s", record.input, record.seconds)
        self.advance(error=None if record.is_done else f"{record.input}: {record.error}", new=new)

    def advance(self, *, error: str | None = None, new: bool = True) -> None:
        """Count an image; as :meth:`on_record`, for what has no record."""
        now = time.monotonic()
        self._count += 1
        if error is not None:
            self._failed += 1
            if self._failed <= _MAX_ERRORS_SHOWN:
                self._echo(f"error: {error}")
        # A reset forgets the images before, which then do not count for the rate.
        change = self._bar.update if new else self._bar.reset
        change(self._task, completed=self._count, total=self._total)
        status = "; ".join(filter(None, [self.status, self._rate()]))
        self._bar.update(self._task, status=status)
        if self._bar.disable and not is_quiet() and now - self._logged > _LOG_INTERVAL:
            self._logged = now
            of = "" if self._total is None else f" of {self._total}"
            self._echo(f"{self._count}{of} images, {self._failed} failed" + (f"; {status}" if status else ""))

    def _rate(self) -> str:
        rate = self._bar.tasks[0].speed
        if not rate:
            return ""
        text = f"{rate:.3g} images/s" if rate >= 1 else f"{1 / rate:.3g} s/image"
        if self._total is not None:
            text += f", {format_duration(max(0, self._total - self._count) / rate)} left"
        return text

    def _echo(self, text: str) -> None:
        line = printable(f"cliper: {text}")
        if self._bar.disable:
            click.echo(line, err=True)
        else:
            self._bar.console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def _find_total(self) -> None:
        assert self._count_images is not None
        try:
            self._total = self._count_images()
        except Exception:  # the run lists the same images, and reports the error
            self._total = None
