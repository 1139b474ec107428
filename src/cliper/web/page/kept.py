"""Results that visitors may still look at: bounded, and each known to one session only."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cliper.errors import InputError
from cliper.result import Segmentation
from cliper.web.page.limits import Limits
from cliper.web.page.view import shown

__all__ = ["Kept"]


@dataclass
class _Entry:
    result: Segmentation
    small: Segmentation
    folder: Path
    size: int
    used: float


class Kept:
    """Results by a name that cannot be guessed. The oldest in use goes first when there are too many.

    Args:
        folder: where the files that visitors download are made; each result has a folder of its own below it.
        limits: how many results, how much memory, how long.
        clock: seconds that only go up.
    """

    def __init__(self, folder: Path, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._limits, self._clock = folder, limits, clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, result: Segmentation) -> str:
        """Keep a result; what it is called."""
        name = secrets.token_urlsafe(16)
        small = shown(result)
        size = _bytes(result) + (0 if small is result else _bytes(small))
        entry = _Entry(result, small, self._folder / name, size, self._clock())
        with self._lock:
            self._entries[name] = entry
            gone = self._outdated()
        _remove(gone)
        return name

    def get(self, name: object) -> Segmentation:
        """A result that is still kept.

        Raises:
            InputError: it is not.
        """
        return self._used(name).result

    def small(self, name: object) -> Segmentation:
        """The same for the viewer, as :func:`cliper.web.page.view.shown` has it.

        Raises:
            InputError: it is no longer kept.
        """
        return self._used(name).small

    def folder(self, name: object) -> Path:
        """The folder of a result's files, made if it is not there; it goes when the result goes.

        Raises:
            InputError: the result is no longer kept.
        """
        entry = self._used(name)
        entry.folder.mkdir(parents=True, exist_ok=True)
        return entry.folder

    def drop(self, name: object) -> None:
        """Forget a result; nothing happens if it is not there."""
        with self._lock:
            entry = self._entries.pop(name, None) if isinstance(name, str) else None
        _remove([entry] if entry else [])

    def sweep(self) -> None:
        """Forget what is too old."""
        with self._lock:
            gone = self._outdated()
        _remove(gone)

    def __len__(self) -> int:
        return len(self._entries)

    def _used(self, name: object) -> _Entry:
        with self._lock:
            gone = self._outdated()
            entry = None
            if isinstance(name, str) and name in self._entries:  # it comes from the browser
                entry = self._entries[name]
                entry.used = self._clock()
                self._entries.move_to_end(name)
        _remove(gone)
        if entry is None:
            raise InputError("this result is no longer kept; press Segment again")
        return entry

    def _outdated(self) -> list[_Entry]:
        """Take out what is too old or too much; the lock is held."""
        oldest = self._clock() - self._limits.seconds
        gone = [name for name, entry in self._entries.items() if entry.used < oldest]
        kept = [name for name in self._entries if name not in gone]
        total = sum(self._entries[name].size for name in kept)
        while len(kept) > 1 and (len(kept) > self._limits.results or total > self._limits.result_megabytes * 10**6):
            total -= self._entries[kept[0]].size
            gone.append(kept.pop(0))
        return [self._entries.pop(name) for name in gone]


def _bytes(result: Segmentation) -> int:
    arrays = (result.labels, result.maps, result.refined, result.confidence)
    return result.image.width * result.image.height * 3 + sum(array.nbytes for array in arrays)


def _remove(entries: list[_Entry]) -> None:
    for entry in entries:
        shutil.rmtree(entry.folder, ignore_errors=True)
