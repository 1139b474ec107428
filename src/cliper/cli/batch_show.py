"""What ``cliper batch`` shows: progress with rate and time left, pictures that failed, and the outcome."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cliper.scale.manifest import Record
    from cliper.scale.run import Tally
    from cliper.scale.sources import Source

__all__ = ["Progress", "show_outcome"]

# Seconds between lines where there is no terminal.
_EVERY = 30.0

# More failures than these are only counted; the manifest has them all.
_MOST_NAMED = 100

# The rate is that of about so many seconds, so that it follows what happens.
_MEMORY = 60.0


class Progress:
    """A bar on a terminal, a line now and then elsewhere; on standard error.

    Args:
        source: its pictures are counted meanwhile.
    """

    def __init__(self, source: Source) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        self._source = source
        self._total: int | None = None
        self._count = self._new = self._failed = 0
        self._began = self._said = time.monotonic()
        self._marks: list[tuple[float, int]] = [(self._began, 0)]
        console = Console(stderr=True)
        self._bar = Bar(
            TextColumn("pictures"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, rate="")

    def __enter__(self) -> Progress:
        self._bar.start()
        threading.Thread(target=self._find_total, name="cliper-count", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if self._failed > _MOST_NAMED:
            click.echo(f"cliper: error: and {self._failed - _MOST_NAMED} more; the manifest names them", err=True)

    @property
    def seconds(self) -> float:
        """Since the begin."""
        return time.monotonic() - self._began

    def seen(self, record: Record, new: bool) -> None:
        """Count a picture; name it if it failed."""
        now = time.monotonic()
        self._count += 1
        self._new += new
        if not record.is_done:
            self._failed += 1
            if self._failed <= _MOST_NAMED:
                self._say(f"error: {record.input}: {record.error}")
        if now - self._marks[-1][0] > 1:
            self._marks.append((now, self._new))
            while self._marks[0][0] < now - _MEMORY and len(self._marks) > 2:
                self._marks.pop(0)
        if not self._bar.disable:
            self._bar.update(self._task, completed=self._count, total=self._total, rate=self._rate(now))
        elif now - self._said > _EVERY:
            self._said = now
            of = "" if self._total is None else f" of {self._total}"
            self._say(f"{self._count}{of} pictures, {self._failed} failed; {self._rate(now)}")

    def _rate(self, now: float) -> str:
        since, before = self._marks[0]
        if self._new == before or now <= since:
            return ""
        rate = (self._new - before) / (now - since)
        text = f"{rate:.3g} a second" if rate >= 1 else f"{1 / rate:.3g} s each"
        if self._total is not None:
            text += f", {_time(max(0, self._total - self._count) / rate)} left"
        return text

    def _say(self, text: str) -> None:
        line = _printable(f"cliper: {text}")
        if self._bar.disable:
            click.echo(line, err=True)
        else:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _find_total(self) -> None:
        try:
            self._total = self._source.count()
        except Exception:  # the run itself meets it, and says so
            self._total = None


def show_outcome(tally: Tally, paths: Sequence[str], seconds: float) -> None:
    """The run in a line, and the files about all pictures."""
    parts = [f"{tally.done + tally.kept} done"]
    if tally.kept:
        parts.append(f"{tally.kept} of them earlier")
    if tally.failed:
        parts.append(f"{tally.failed} failed")
    rate = f"; {tally.done / seconds:.3g} a second" if tally.done else ""
    click.echo(f"{tally.total} pictures: {', '.join(parts)}; {_time(seconds)}{rate}")
    for path in paths[:20]:
        click.echo(_printable(f"wrote {path}"))
    if len(paths) > 20:
        click.echo(f"... and {len(paths) - 20} files more beside them")


def _printable(text: str) -> str:
    """On one line, and nothing that a terminal would obey: names of files may hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d} min"
