"""What was counted for each picture, kept on disk as it comes: a killed run loses at most what it was about to write.

A record is a line of JSON that is written in one piece. A line that was cut off by a kill or a full disk is dropped
on reading, and cut away before anything is added behind it. Each worker has a file of its own; a picture that stands
in several is counted once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from cliper.errors import OutputError
from cliper.evaluation.confusion import ConfusionMatrix

__all__ = ["Record", "RecordLog", "matrix_of", "read_records"]

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
    """

    name: str
    counts: Mapping[str, list[int]]
    seconds: float = 0.0
    error: str | None = None

    @classmethod
    def of(cls, name: str, matrices: Mapping[str, ConfusionMatrix], seconds: float) -> Record:
        """A record of a picture's own matrices, by variant."""
        counts = {}
        for label, filled in matrices.items():
            matrix = filled.matrix
            places = matrix.nonzero()
            rows = [[int(r), int(c), int(matrix[r, c])] for r, c in places]
            counts[label] = [number for row in rows for number in row]
        return cls(name, counts, seconds)


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
        worker: number of the worker that writes it.

    Raises:
        OutputError: it cannot be written.
    """

    def __init__(self, folder: Path, worker: int = 0) -> None:
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
        line = json.dumps(
            {"name": record.name, "counts": record.counts, "seconds": record.seconds, "error": record.error}
        )
        data = line.encode() + b"\n"
        try:
            written = os.write(self._handle, data)
        except OSError as error:
            raise _cannot_write(self.path, error) from None
        if written < len(data):
            raise OutputError(f"cannot write {self.path}: the disk is full; free space and start again")


def read_records(folder: Path) -> dict[str, Record]:
    """All records of a run by picture; of several of one picture, one that was counted.

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
            record = _parse(line)
            if record is not None and (record.error is None or record.name not in found):
                found[record.name] = record
    return found


def _parse(line: bytes) -> Record | None:
    try:
        values: Any = json.loads(line)
        return Record(values["name"], values["counts"], values["seconds"], values["error"])
    except (ValueError, KeyError, TypeError):
        return None


def _whole_lines(path: Path) -> int:
    """Bytes up to the end of the last whole line."""
    return path.read_bytes().rfind(b"\n") + 1


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write {path}: {error.strerror or error}; choose another folder or free space")
