"""The state of each image of a run: one line of JSON each, on disk as soon as the image is finished.

A line is written in one piece, so that a killed run loses at most the line that it was about to write; half a line at
the end is cut off when the run is resumed. Lines come in the order in which images are finished; at the end the file is
written again in the order of the run. The last line about an image counts.
"""

from __future__ import annotations

import json
import os
import threading
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cliper.errors import OutputError, reraise
from cliper.files import atomic_write

__all__ = ["CONFLICT", "DAMAGED", "Manifest", "Record", "parse_record", "read_manifest"]

CONFLICT = "another image has the same output name: "
"""Why an image failed: another one comes first in the source."""
DAMAGED = "a file of its results is damaged or missing: "
"""Why an image that was done must be done again."""

_FIELDS = ("input", "outputs", "status", "error", "seconds", "areas")


@dataclass(frozen=True)
class Record:
    """The state of one image."""

    input: str  # its name
    outputs: tuple[str, ...] = ()  # its files, relative to the run's folder
    status: str = "done"  # or "failed"
    error: str | None = None  # why it failed
    seconds: float = 0.0  # reading, its share of the model's time, writing
    areas: Mapping[str, float] = field(default_factory=dict)  # share of the image's pixels by class
    details: Mapping[str, Any] = field(default_factory=dict)  # what else the task notes; the keys are no fields

    @classmethod
    def failed(cls, name: str, error: object, seconds: float = 0.0) -> Record:
        """An image that failed, and why."""
        return cls(name, status="failed", error=" ".join(str(error).split()), seconds=round(seconds, 4))

    @property
    def is_done(self) -> bool:
        """Whether its files exist."""
        return self.status == "done"

    def has_failed_by(self, reason: str) -> bool:
        """Whether it failed because of :data:`CONFLICT` or :data:`DAMAGED`."""
        return (self.error or "").startswith(reason)

    def line(self) -> bytes:
        """Its line in the manifest."""
        return json.dumps({**{name: getattr(self, name) for name in _FIELDS}, **self.details}).encode() + b"\n"


def parse_record(line: bytes) -> Record | None:
    """The record of a line; None if it is none."""
    try:
        values: dict[str, Any] = json.loads(line)
        known = {name: values.pop(name) for name in _FIELDS}
        record = Record(**{**known, "outputs": tuple(known["outputs"])}, details=values)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return record if isinstance(record.input, str) else None


def read_manifest(path: Path) -> Iterator[Record]:
    """The records of a manifest, in its order. Raises OutputError if it cannot be read."""
    with reraise(OSError, OutputError, f"cannot read {path}", "check its permissions"), path.open("rb") as stream:
        yield from (record for record in map(parse_record, stream) if record is not None)


class Manifest(AbstractContextManager["Manifest"]):
    """The manifest of a run in progress; may be used by many threads at once.

    In memory are about 100 bytes for each image.

    Args:
        path: of the file; lines that it holds stay.
        output_key: from an image's name to what its output names depend on. Of two images with one key, at most the one
            that was finished last still has its files.
    """

    def __init__(self, path: Path, output_key: Callable[[str], str] = str) -> None:
        self.path = path
        self._output_key = output_key
        self._lock = threading.Lock()
        self._known: dict[int, int] = {}  # by hash of the output key: offset of the line of an earlier run
        self._offsets: array[int] = array("q")  # by number - 1: offset of the image's line; -1 if it has none
        with self._write_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = path.open("ab", buffering=0)
            self._reader = path.open("rb")
            self._end = self._load()
            self._writer.truncate(self._end)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._writer.close()
            self._reader.close()

    def find(self, name: str) -> Record | None:
        """The record of an image from an earlier run, unless its files were replaced by another image's."""
        record = self._read(self._known.get(hash(self._output_key(name)), -1))
        return record if record is not None and record.input == name else None

    def records(self) -> Iterator[tuple[int, Record]]:
        """The records of this run in its order, each with the image's number."""
        for index in range(len(self._offsets)):
            record = self._read(self._offsets[index])
            if record is not None:
                yield index + 1, record

    def keep(self, number: int, name: str) -> None:
        """Take over the record of an earlier run."""
        with self._lock:
            self._set_offset(number, self._known[hash(self._output_key(name))])

    def add(self, number: int, record: Record) -> None:
        """Write a record; once this returns, killing the process does not lose it. Raises OutputError."""
        line = record.line()
        with self._lock, self._write_errors():
            if os.fstat(self._writer.fileno()).st_nlink == 0:
                raise OSError(0, "it was removed during the run")
            if self._writer.write(line) < len(line):  # a disk that is filling up takes a part
                self._writer.truncate(self._end)
                raise OSError(0, "the disk is full")
            self._set_offset(number, self._end)
            self._end += len(line)

    def finish(self) -> None:
        """Write the file again in the order of the run, without lines of images that are not in this run."""
        with self._lock, atomic_write(self.path) as temporary, temporary.open("wb") as stream:
            stream.writelines(self._line(offset) for offset in self._offsets if offset >= 0)

    def _set_offset(self, number: int, offset: int) -> None:
        self._offsets.extend([-1] * (number - len(self._offsets)))
        self._offsets[number - 1] = offset

    def _load(self) -> int:
        """Read the lines of earlier runs; the end of the last whole line."""
        end = 0
        for line in self._reader:
            if not line.endswith(b"\n"):
                break
            record = parse_record(line)
            if record is not None and not record.has_failed_by(CONFLICT):
                self._known[hash(self._output_key(record.input))] = end
            end += len(line)
        return end

    def _read(self, offset: int) -> Record | None:
        with self._lock:
            return None if offset < 0 else parse_record(self._line(offset))

    def _line(self, offset: int) -> bytes:
        self._reader.seek(offset)
        return self._reader.readline()

    def _write_errors(self) -> AbstractContextManager[None]:
        advice = "free space or choose another folder, and --resume"
        return reraise(OSError, OutputError, f"cannot write {self.path}", advice)
