"""What became of each picture: one line of JSON each, kept on disk as it comes.

A line is written in one piece, so that a killed run loses at most what it was about to write; half a line at the end
is cut off when the run goes on. Lines come in the order in which pictures are finished; at the end the file is
written anew in the order of the run. Of several lines about one picture the last one counts.
"""

from __future__ import annotations

import json
import os
import threading
from array import array
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from cliper.errors import OutputError
from cliper.files import atomic_write
from cliper.scale.names import NameIndex

__all__ = ["Manifest", "Record", "parse_record", "read_manifest"]


_DAMAGED = "a file of its results is damaged or missing: "


@dataclass(frozen=True)
class Record:
    """One picture.

    Args:
        input: its name.
        outputs: its files, relative to the run's folder, in the order of the formats.
        status: ``"done"`` or ``"failed"``.
        error: why it failed, or None.
        seconds: what it took: reading, its share of the model's time, writing.
        areas: share of the picture's pixels by class.
        width, height: of the upright picture, in pixels; 0 if it failed.
    """

    input: str
    outputs: tuple[str, ...] = ()
    status: str = "done"
    error: str | None = None
    seconds: float = 0.0
    areas: dict[str, float] = field(default_factory=dict)
    width: int = 0
    height: int = 0

    @classmethod
    def failed(cls, name: str, error: object, seconds: float = 0.0) -> Record:
        """A picture that could not be done, and why."""
        return cls(name, status="failed", error=" ".join(str(error).split()), seconds=seconds)

    @classmethod
    def damaged(cls, name: str, error: object) -> Record:
        """A picture that was done, but one of its files cannot be used any more, and why."""
        return cls.failed(name, f"{_DAMAGED}{error}")

    @property
    def is_damaged(self) -> bool:
        """Whether it was done, and has to be done again."""
        return not self.is_done and (self.error or "").startswith(_DAMAGED)

    @property
    def is_done(self) -> bool:
        """Whether its files are there."""
        return self.status == "done"

    def line(self) -> bytes:
        """As it stands in the manifest."""
        return json.dumps({**asdict(self), "outputs": list(self.outputs)}).encode() + b"\n"


def parse_record(line: bytes) -> Record | None:
    """What a line says; None if it is no record."""
    try:
        values: dict[str, Any] = json.loads(line)
        record = Record(**{**values, "outputs": tuple(values["outputs"])})
    except (ValueError, KeyError, TypeError):
        return None
    return record if isinstance(record.input, str) else None


def read_manifest(path: Path) -> Iterator[Record]:
    """The records of a manifest, one after the other.

    Raises:
        OutputError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            yield from (record for record in map(parse_record, stream) if record is not None)
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror or error}; check its permissions") from None


class Manifest:
    """The file of a run that goes on; may be used by several threads at once.

    Args:
        path: of the file; what is there already is kept.
        learn: called with each record that is there, in their order.

    Raises:
        OutputError: it cannot be read or written.
    """

    def __init__(self, path: Path, learn: Callable[[Record], None] | None = None) -> None:
        self.path = path
        self._learn = learn
        self._lock = threading.Lock()
        self._known = NameIndex()
        self._places: array[int] = array("q")  # by number - 1: where the picture's line begins; -1 for nowhere
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            self._end = self._read()
            os.ftruncate(self._handle, self._end)
        except OSError as error:
            raise self._refused(error) from None

    def __enter__(self) -> Manifest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:  # a thread that comes later must not write to what gets this number next
            os.close(self._handle)
            self._handle = -1

    def find(self, name: str) -> Record | None:
        """What an earlier run says of a picture."""
        with self._lock:
            place = self._known.get(name)
            record = None if place is None else parse_record(self._line(place))
        return record if record is not None and record.input == name else None

    def record(self, number: int) -> Record | None:
        """What this run says of the picture with a number."""
        with self._lock:
            place = self._places[number - 1] if number <= len(self._places) else -1
            return None if place < 0 else parse_record(self._line(place))

    def records(self) -> Iterator[tuple[int, Record]]:
        """What this run says of each picture, in its order, with the picture's number."""
        for number in range(1, len(self._places) + 1):
            record = self.record(number)
            if record is not None:
                yield number, record

    def keep(self, number: int, name: str) -> None:
        """What an earlier run says of a picture stays, with this number."""
        with self._lock:
            place = self._known.get(name)
            if place is not None:
                self._put(number, place)

    def add(self, number: int, record: Record) -> None:
        """Write a record; once this returns, killing the process does not lose it.

        Raises:
            OutputError: it could not be written.
        """
        line = record.line()
        with self._lock:
            try:
                written = os.pwrite(self._handle, line, self._end)
                if written < len(line):  # a disk that is filling up takes a part
                    os.ftruncate(self._handle, self._end)
                    raise OSError(0, "the disk is full")
            except OSError as error:
                raise self._refused(error) from error
            self._put(number, self._end)
            self._end += len(line)

    def finish(self) -> None:
        """Write the file anew in the order of the run, without what is not of this run.

        Raises:
            OutputError: it could not be written.
        """
        with self._lock, atomic_write(self.path) as temporary, temporary.open("wb") as stream:
            for place in self._places:
                if place >= 0:
                    stream.write(self._line(place))

    def _put(self, number: int, place: int) -> None:
        missing = number - len(self._places)
        if missing > 0:
            self._places.extend([-1] * missing)
        self._places[number - 1] = place

    def _read(self) -> int:
        """Take in what is there; the end of the last whole line."""
        end = 0
        with open(self._handle, "rb", closefd=False) as stream:
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                record = parse_record(line)
                if record is not None:
                    self._known[record.input] = end
                    if self._learn is not None:
                        self._learn(record)
                end += len(line)
        return end

    def _line(self, place: int) -> bytes:
        data = b""
        while b"\n" not in data:
            more = os.pread(self._handle, 4096, place + len(data))
            if not more:
                break
            data += more
        return data[: data.find(b"\n") + 1]

    def _refused(self, error: OSError) -> OutputError:
        return OutputError(
            f"cannot write {self.path}: {error.strerror or error}; free space or choose another folder, and --resume"
        )
