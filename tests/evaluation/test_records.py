"""Records on disk: nothing is lost by a kill, nothing counts twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cliper.errors import OutputError, ShapeError
from cliper.evaluation import ConfusionMatrix
from cliper.evaluation.records import Record, RecordLog, files_state, matrix_of, read_records

LABELS = 4
RUN = "0123456789abcdef"
pictures = st.lists(st.tuples(st.integers(0, LABELS - 1), st.integers(0, LABELS - 1)), min_size=1, max_size=30)


def read(folder: Path) -> dict[str, Record]:
    return read_records(folder, RUN, dict.fromkeys(["1", "2", "3", "ä/1"], ""))


def filled(pixels: list[tuple[int, int]]) -> ConfusionMatrix:
    matrix = ConfusionMatrix(LABELS)
    matrix.update(np.array([p[0] for p in pixels]), np.array([p[1] for p in pixels]))
    return matrix


@given(st.lists(pictures, min_size=1, max_size=6))
def test_records_hold_the_whole_matrix(given_pictures: list[list[tuple[int, int]]]) -> None:
    records = [Record.of(str(i), {"a": filled(p)}, 0.0) for i, p in enumerate(given_pictures)]
    together = filled([pixel for picture in given_pictures for pixel in picture])
    assert torch.equal(matrix_of(records, "a", LABELS).matrix, together.matrix)
    assert matrix_of(records, "b", LABELS).matrix.sum() == 0


def test_counts_that_are_no_matrix_are_refused() -> None:
    matrix = ConfusionMatrix(2)
    for wrong in ([1, 2], [0, 2, 5], [0, 0, -1], [-1, 0, 1]):
        with pytest.raises(ShapeError, match="counts: expected"):
            matrix.add_counts(wrong)
    assert matrix.matrix.sum() == 0
    matrix.add_counts([0, 1, 5, 0, 1, 2])
    assert matrix.matrix.tolist() == [[0, 7], [0, 0]]


def test_what_was_added_is_there(tmp_path: Path) -> None:
    records = [Record("ä/1", {"": [0, 0, 3]}, 0.5), Record("2", {}, 0.0, "broken")]
    with RecordLog(tmp_path / "new", RUN) as log:
        for record in records:
            log.add(record)
            assert read(tmp_path / "new")[record.name] == record
    assert list(read(tmp_path / "new").values()) == records
    assert read(tmp_path / "none") == {}


@given(cut=st.integers(1, 60))
def test_a_line_that_was_cut_off_is_dropped_and_the_next_is_whole(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("run")
    with RecordLog(folder, RUN) as log:
        log.add(Record("1", {"": [0, 0, 1]}))
        log.add(Record("2", {"": [1, 1, 2]}))
    whole = log.path.read_bytes()
    first = whole.index(b"\n") + 1
    log.path.write_bytes(whole[: max(first, len(whole) - cut)])
    assert list(read(folder)) == ["1"]
    with RecordLog(folder, RUN) as log:
        log.add(Record("3", {"": [0, 1, 4]}))
    assert list(read(folder)) == ["1", "3"]
    assert log.path.read_bytes().startswith(whole[:first])


def test_a_picture_of_two_workers_counts_once(tmp_path: Path) -> None:
    for worker, error in ((0, None), (1, None), (2, "could not be read")):
        with RecordLog(tmp_path, RUN, worker) as log:
            log.add(Record("1", {} if error else {"": [0, 0, 7]}, error=error))
    (record,) = read(tmp_path).values()
    assert (record.counts, record.error) == ({"": [0, 0, 7]}, None)


def test_a_skipped_picture_that_is_counted_later_is_counted(tmp_path: Path) -> None:
    with RecordLog(tmp_path, RUN) as log:
        log.add(Record("1", {}, error="could not be read"))
        log.add(Record("1", {"": [0, 0, 7]}))
    assert read(tmp_path)["1"].error is None


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*records-0\.jsonl: .*; choose another folder"):
        RecordLog(tmp_path / "file", RUN)


def test_a_full_disk_is_one_line() -> None:
    log = RecordLog.__new__(RecordLog)
    log.path, log._run = Path("/dev/full"), RUN
    with Path("/dev/full").open("wb", buffering=0) as full:
        log._handle = full.fileno()
        with pytest.raises(OutputError, match="cannot write /dev/full: No space left on device"):
            log.add(Record("1", {}))


def test_records_of_another_run_or_of_other_files_do_not_count(tmp_path: Path) -> None:
    with RecordLog(tmp_path, "another") as log:
        log.add(Record("1", {"": [0, 0, 1]}, files="a"))
    with RecordLog(tmp_path, RUN) as log:
        log.add(Record("2", {"": [0, 0, 2]}, files="old"))
        log.add(Record("3", {"": [0, 0, 3]}, files="a"))
        log.add(Record("4", {"": [0, 0, 4]}, files="a"))
    assert list(read_records(tmp_path, RUN, {"1": "a", "2": "new", "3": "a"})) == ["3"]


def test_the_state_of_files_changes_with_them(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    assert files_state(a, b) == ""
    a.write_text("a")
    b.write_text("b")
    before = files_state(a, b)
    assert before == files_state(a, b) != ""
    b.write_text("bb")
    assert files_state(a, b) != before
