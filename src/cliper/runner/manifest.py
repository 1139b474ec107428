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
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from cliper.errors import OutputError
from cliper.files import atomic_write

__all__ = ["Manifest", "Record", "parse_record", "read_manifest"]

_CONFLICT = "another image has the same output name: "
_DAMAGED = "a file of its results is damaged or missing: "
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

    @classmethod
    def conflict(cls, name: str, other: str) -> Record:
        """An image whose files would have the names of another's, which comes first in the source."""
        return cls.failed(name, f"{_CONFLICT}{other}; rename one of them, or leave one out with --glob")

    @classmethod
    def damaged(cls, name: str, error: object) -> Record:
        """An image that was done, but one of its files cannot be used any more, and why."""
        return cls.failed(name, f"{_DAMAGED}{error}")

    @property
    def is_done(self) -> bool:
        """Whether its files exist."""
        return self.status == "done"

    @property
    def is_conflict(self) -> bool:
        """Whether it failed because of another image's name, which depends on the source alone."""
        return (self.error or "").startswith(_CONFLICT)

    @property
    def is_damaged(self) -> bool:
        """Whether it was done, and must be done again."""
        return (self.error or "").startswith(_DAMAGED)

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
    try:
        with path.open("rb") as stream:
            yield from (record for record in map(parse_record, stream) if record is not None)
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror or error}; check its permissions") from None


class Manifest:
    """The manifest of a run in progress; may be used by many threads at once.

    In memory are about 100 bytes for each image.

    Args:
        path: of the file; lines that it holds stay.
        output_key: from an image's name to what its output names depend on. Of two images with one key, at most the one
            that was finished last still has its files.

    Raises:
        OutputError: it cannot be read or written.
    """

    def __init__(self, path: Path, output_key: Callable[[str], str] = str) -> None:
        self.path = path
        self._output_key = output_key
        self._lock = threading.Lock()
        self._known: dict[int, int] = {}  # by hash of the output key: offset of the line of an earlier run
        self._offsets: array[int] = array("q")  # by number - 1: offset of the image's line; -1 if it has none
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            self._end = self._load()
            os.ftruncate(self._handle, self._end)
        except OSError as error:
            raise self._write_error(error) from None

    def __enter__(self) -> Manifest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:  # a thread that is late must not write to the next file that gets this number
            os.close(self._handle)
            self._handle = -1

    def find(self, name: str) -> Record | None:
        """The record of an image from an earlier run, unless its files were replaced by another image's."""
        with self._lock:
            offset = self._known.get(hash(self._output_key(name)))
            record = None if offset is None else parse_record(self._line(offset))
        return record if record is not None and record.input == name else None

    def record(self, number: int) -> Record | None:
        """The record of an image in this run."""
        with self._lock:
            offset = self._offsets[number - 1] if number <= len(self._offsets) else -1
            return None if offset < 0 else parse_record(self._line(offset))

    def records(self) -> Iterator[tuple[int, Record]]:
        """The records of this run in its order, each with the image's number."""
        for number in range(1, len(self._offsets) + 1):
            record = self.record(number)
            if record is not None:
                yield number, record

    def keep(self, number: int, name: str) -> None:
        """Take over the record of an earlier run."""
        with self._lock:
            self._set_offset(number, self._known[hash(self._output_key(name))])

    def add(self, number: int, record: Record) -> None:
        """Write a record; once this returns, killing the process does not lose it.

        Raises:
            OutputError: it could not be written, or the file was removed.
        """
        line = record.line()
        with self._lock:
            try:
                if os.fstat(self._handle).st_nlink == 0:
                    raise OSError(0, "it was removed during the run")
                written = os.pwrite(self._handle, line, self._end)
                if written < len(line):  # a disk that is filling up takes a part
                    os.ftruncate(self._handle, self._end)
                    raise OSError(0, "the disk is full")
            except OSError as error:
                raise self._write_error(error) from error
            self._set_offset(number, self._end)
            self._end += len(line)

    def finish(self) -> None:
        """Write the file again in the order of the run, without lines of images that are not in this run."""
        with self._lock, atomic_write(self.path) as temporary, temporary.open("wb") as stream:
            for offset in self._offsets:
                if offset >= 0:
                    stream.write(self._line(offset))

    def _set_offset(self, number: int, offset: int) -> None:
        missing = number - len(self._offsets)
        if missing > 0:
            self._offsets.extend([-1] * missing)
        self._offsets[number - 1] = offset

    def _load(self) -> int:
        """Read the lines of earlier runs; the end of the last whole line."""
        end = 0
        with open(self._handle, "rb", closefd=False) as stream:
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                record = parse_record(line)
                if record is not None and not record.is_conflict:
                    self._known[hash(self._output_key(record.input))] = end
                end += len(line)
        return end

    def _line(self, offset: int) -> bytes:
        data = b""
        while b"\n" not in data:
            more = os.pread(self._handle, 4096, offset + len(data))
            if not more:
                break
            data += more
        return data[: data.find(b"\n") + 1]

    def _write_error(self, error: OSError) -> OutputError:
        return OutputError(
            f"cannot write {self.path}: {error.strerror or error}; free space or choose another folder, and --resume"
        )
