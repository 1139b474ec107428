"""What was counted for each picture, kept on disk as it comes: a killed run loses at most what it was about to write.

A record is a line of JSON that is written in one piece. A line that was cut off by a kill or a full disk is dropped
on reading, and cut away before anything is added behind it. Each worker has a file of its own; a picture that stands
in several is counted once. A record says which run it is of and which files it was made from: those of another run, and
those whose picture or mask has changed since, do not count.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from cliper.errors import OutputError
from cliper.evaluation.confusion import ConfusionMatrix

__all__ = ["Record", "RecordLog", "files_state", "matrix_of", "read_records"]

_PATTERN = "records-*.jsonl"


@dataclass(frozen=True)
class Record:
    """One picture.

    Args:
        name: of the sample.
        counts: by variant, the confusion matrix without its zeros: row, column, count, row, column, count, ...;
            empty if the picture was skipped.
        seconds: that the model took for it.
        error: why it was skipped, or None.
        files: which state of picture and mask it was made from; see :func:`files_state`.
    """

    name: str
    counts: Mapping[str, list[int]]
    seconds: float = 0.0
    error: str | None = None
    files: str = ""

    @classmethod
    def of(cls, name: str, matrices: Mapping[str, ConfusionMatrix], seconds: float, files: str = "") -> Record:
        """A record of a picture's own matrices, by variant."""
        counts = {}
        for label, filled in matrices.items():
            matrix = filled.matrix
            places = matrix.nonzero()
            rows = [[int(r), int(c), int(matrix[r, c])] for r, c in places]
            counts[label] = [number for row in rows for number in row]
        return cls(name, counts, seconds, files=files)


def files_state(*paths: Path) -> str:
    """Size and time of change of files, so that one that was replaced is noticed; "" if one is not there."""
    try:
        states = [path.stat() for path in paths]
    except OSError:
        return ""
    return " ".join(f"{state.st_size}-{state.st_mtime_ns}" for state in states)


def matrix_of(
    records: Iterable[Record], variant: str, num_labels: int, ignore: Iterable[int] = (255,)
) -> ConfusionMatrix:
    """The confusion matrix over pictures; skipped ones count nothing.

    Raises:
        ShapeError: records of more labels.
    """
    total = ConfusionMatrix(num_labels, ignore)
    for record in records:
        total.add_counts(record.counts.get(variant, []))
    return total


class RecordLog:
    """A file that records are added to.

    Args:
        folder: in which it lies; made if it is not there.
        run: name of the run that its records are of.
        worker: number of the worker that writes it.

    Raises:
        OutputError: it cannot be written.
    """

    def __init__(self, folder: Path, run: str, worker: int = 0) -> None:
        self._run = run
        self.path = folder / f"records-{worker}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            os.ftruncate(self._handle, _whole_lines(self.path))
        except OSError as error:
            raise _cannot_write(self.path, error) from None

    def __enter__(self) -> RecordLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)

    def add(self, record: Record) -> None:
        """Add a record; once this returns, killing the process does not lose it.

        Raises:
            OutputError: it could not be written (a full disk, say).
        """
        data = json.dumps({"run": self._run, **asdict(record)}).encode() + b"\n"
        try:
            written = os.write(self._handle, data)
        except OSError as error:
            raise _cannot_write(self.path, error) from None
        if written < len(data):
            raise OutputError(f"cannot write {self.path}: the disk is full; free space and start again")


def read_records(folder: Path, run: str, states: Mapping[str, str]) -> dict[str, Record]:
    """The records of a run by picture; of several of one picture, one that was counted.

    Args:
        folder: where they lie.
        run: name of the run; those of another are passed over.
        states: by picture, the state of its files; records made from another are passed over.

    Raises:
        OutputError: a file that is there cannot be read.
    """
    found: dict[str, Record] = {}
    for path in sorted(folder.glob(_PATTERN)):
        try:
            lines = path.read_bytes().split(b"\n")[:-1]  # what no line end follows is not whole
        except OSError as error:
            raise OutputError(f"cannot read {path}: {error.strerror}; check its permissions") from None
        for line in lines:
            record = _parse(line, run)
            if record is None or states.get(record.name) != record.files:
                continue
            if record.error is None or record.name not in found:
                found[record.name] = record
    return found


def _parse(line: bytes, run: str) -> Record | None:
    try:
        values: Any = json.loads(line)
        return Record(**values) if values.pop("run") == run else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _whole_lines(path: Path) -> int:
    """Bytes up to the end of the last whole line."""
    return path.read_bytes().rfind(b"\n") + 1


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write {path}: {error.strerror or error}; choose another folder or free space")
