"""A run that is going on: what is left to do, and what has become of it."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from cliper.scale.claims import Claims, is_refusal
from cliper.scale.items import Item
from cliper.scale.job import Job
from cliper.scale.manifest import Manifest, Record
from cliper.scale.names import NameIndex
from cliper.scale.places import Place
from cliper.scale.sources import Source

__all__ = ["Run", "Tally"]

Seen = Callable[[Record, bool], None]


@dataclass
class Tally:
    """How many pictures there were.

    Args:
        done: in this run.
        failed: in this run or, where they are not tried again, an earlier one.
        kept: done by an earlier run.
    """

    done: int = 0
    failed: int = 0
    kept: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.done + self.failed + self.kept


class Run:
    """A run that is going on.

    Args:
        source: its pictures.
        job: what is done with them.
        place: the folder of the pictures' files.
        manifest: what has become of them.
        claims: who has which names; they have learnt the manifest.
        seen: called with each record, and whether it is new; from any thread, one call at a time.
        retry_failed: whether pictures that failed in an earlier run are tried again.
    """

    def __init__(
        self,
        source: Source,
        job: Job,
        place: Place,
        manifest: Manifest,
        claims: Claims,
        seen: Seen,
        *,
        retry_failed: bool = False,
    ) -> None:
        self.source, self.job, self.place, self.manifest = source, job, place, manifest
        self.tally = Tally()
        self._lock = threading.Lock()
        self._claims, self._seen, self._retry_failed = claims, seen, retry_failed
        self._names = NameIndex()  # by name the number
        self._waiting: array[int] = array("q")  # numbers of those whose names are another's, which may yet fail

    def rounds(self) -> Iterator[Iterator[Item]]:
        """The pictures that have to be done, while the source is listed; a round is to be ended before the next begins.

        There is more than one where pictures have the names of others that have failed.

        Raises:
            InputError: the source ends in the middle.
            OutputError: the manifest cannot be written.
        """
        yield self._listed()
        while freed := self._freed():
            yield self._again(freed)

    def add(self, number: int, record: Record) -> None:
        """Write down what has become of a picture.

        Raises:
            OutputError: the manifest cannot be written.
        """
        self.manifest.add(number, record)
        if not record.is_done:
            self._claims.release(record.input)
        self._count(record, new=True)

    def _listed(self) -> Iterator[Item]:
        for item in self.source.items():
            if self._names.get(item.name) is not None:
                error = f"there is another picture of that name: {item.name}; its results are that one's"
                item = replace(item, name=f"{item.name}#{item.number}", error=error)
            self._names[item.name] = item.number
            known = self.manifest.find(item.name)
            if known is not None and self._stands(known):
                self.manifest.keep(item.number, item.name)
                self._count(known, new=False)
            elif item.error is not None:  # it has no results: whoever wants the names may have them
                self.add(item.number, Record.failed(item.name, item.error))
            elif self._takes(item, None):
                yield item

    def _takes(self, item: Item, gone: Callable[[int], bool] | None) -> bool:
        refusal = self._claims.take(item.name, gone)
        if refusal is not None:  # what the manifest says of it is the last word unless the names become free
            self.manifest.add(item.number, Record.failed(item.name, refusal))
            self._waiting.append(item.number)
        return refusal is None

    def _gone(self, owner: int) -> bool:
        """Whether an earlier run's picture, by its checksum, is no longer there; once all has been listed."""
        return self._names.find(owner) is None

    def _freed(self) -> set[int]:
        """Numbers of those that waited for names which are free now; the others have failed."""
        waiting, self._waiting = self._waiting, array("q")
        freed = set()
        for number in waiting:
            record = self.manifest.record(number)
            assert record is not None
            if self._claims.refusal(record.input, self._gone) is None:
                freed.add(number)
            else:
                self._count(record, new=True)
        return freed

    def _again(self, numbers: set[int]) -> Iterator[Item]:
        for item in self.source.items():
            number = self._names.get(item.name)  # the source may have grown meanwhile
            if number in numbers:
                numbers.discard(number)
                item = replace(item, number=number)
                if item.error is not None:
                    self.add(number, Record.failed(item.name, item.error))
                elif self._takes(item, self._gone):
                    yield item

    def _count(self, record: Record, *, new: bool) -> None:
        with self._lock:
            if not record.is_done:
                self.tally.failed += 1
            elif new:
                self.tally.done += 1
            else:
                self.tally.kept += 1
            self._seen(record, new)

    def _stands(self, record: Record) -> bool:
        if not record.is_done:
            return not (self._retry_failed or is_refusal(record) or record.is_damaged)
        if not self._claims.has(record.input):  # a later run gave them to another
            return False
        return self.place.local is None or all(self.place.exists(name) for name in record.outputs)
