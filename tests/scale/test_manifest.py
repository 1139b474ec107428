"""The manifest: what is written stays, half a line does not, and the end is in the order of the run."""

from __future__ import annotations

import errno
import os
import threading
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cliper.errors import OutputError
from cliper.scale import names
from cliper.scale.manifest import Manifest, Record, parse_record, read_manifest
from cliper.scale.names import NameIndex

# Any text, also that which comes of file names that are no text.
NAMES = st.text(st.characters(exclude_categories=()))


@given(st.lists(st.tuples(st.integers(0, 50).map(str), st.integers(0, 2**62))))
def test_an_index_is_a_dict(pairs: list[tuple[str, int]]) -> None:
    index, expected = NameIndex(), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(names, "_WAITING", 7)
        for name, value in pairs:
            index[name] = expected[name] = value
            assert index.get(name) == value
        for name in map(str, range(52)):
            assert index.get(name) == expected.get(name)


def test_an_index_takes_16_bytes_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_WAITING", 1000)
    count = 50_000
    tracemalloc.start()
    try:
        index = NameIndex()
        for number in range(count):
            index[str(number)] = number
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(index.get(str(number)) == number for number in range(0, count, 97))
    assert now / count < 17
    # While it grows there is a copy of one of its two arrays, a bit for each of its places, and what waits (200 kB).
    assert (peak - 200_000) / count < 32


@given(NAMES, st.lists(NAMES), st.dictionaries(st.text(), st.floats(0, 1)), st.booleans())
def test_a_record_comes_back_from_its_line(name: str, outputs: list[str], areas: dict[str, float], done: bool) -> None:
    record = Record(name, tuple(outputs), areas=areas, width=3, height=4) if done else Record.failed(name, "a\nb  c")
    line = record.line()
    assert line.count(b"\n") == 1
    assert parse_record(line) == record
    assert record.error == (None if done else "a b c")


@settings(deadline=None)
@given(st.permutations(range(1, 7)), st.integers(0, 6), st.integers(0, 60))
def test_cut_off_and_gone_on_it_ends_in_order(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], before: int, cut: int
) -> None:
    path = tmp_path_factory.mktemp("m") / "manifest.jsonl"
    with Manifest(path) as manifest:
        for number in order[:before]:
            manifest.add(number, Record(f"p{number}"))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - min(cut, len(data))])
    whole = path.read_bytes().count(b"\n")
    with Manifest(path) as manifest:
        kept = 0
        for number in range(1, 7):
            known = manifest.find(f"p{number}")
            if known is None:
                manifest.add(number, Record(f"p{number}", seconds=1.0))
            else:
                kept += 1
                manifest.keep(number, f"p{number}")
        manifest.finish()
    assert kept == whole
    assert [record.input for record in read_manifest(path)] == [f"p{number}" for number in range(1, 7)]
    assert sum(record.seconds for record in read_manifest(path)) == 6 - kept


def test_the_last_line_about_a_picture_counts(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    lines = [Record.failed("a", "bad").line(), b"no record\n", b'{"input": 3}\n', Record("a", ("a.png",)).line()]
    path.write_bytes(b"".join(lines) + Record("gone").line())
    with Manifest(path) as manifest:
        assert manifest.find("a") == Record("a", ("a.png",))
        assert manifest.find("b") is None
        manifest.keep(1, "a")
        manifest.add(3, Record("c"))
        manifest.finish()
    assert list(read_manifest(path)) == [Record("a", ("a.png",)), Record("c")]


def test_many_threads_write_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    with Manifest(path) as manifest:
        numbers = iter(range(1, 401))
        lock = threading.Lock()

        def work() -> None:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                manifest.add(number, Record(f"p{number}", error="x" * (number * 13 % 97)))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        manifest.finish()
    assert [record.input for record in read_manifest(path)] == [f"p{number}" for number in range(1, 401)]


@pytest.mark.parametrize("written", [None, 5])
def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int | None) -> None:
    path = tmp_path / "manifest.jsonl"
    pwrite = os.pwrite

    def full(handle: int, data: bytes, place: int) -> int:
        if written is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(handle, data[:written], place)

    with Manifest(path) as manifest:
        manifest.add(1, Record("a"))
        with monkeypatch.context() as patch:
            patch.setattr("cliper.scale.manifest.os.pwrite", full)
            with pytest.raises(OutputError, match=r"cannot write .*manifest.jsonl: "):
                manifest.add(2, Record("b"))
        manifest.add(2, Record("b"))
    assert path.read_bytes() == Record("a").line() + Record("b").line()


def test_a_thread_that_comes_too_late_writes_nowhere(tmp_path: Path) -> None:
    with Manifest(tmp_path / "manifest.jsonl") as manifest:
        pass
    # This file has, most likely, the number that the manifest had.
    with (tmp_path / "other").open("wb"), pytest.raises(OutputError):
        manifest.add(1, Record("late"))
    assert (tmp_path / "other").read_bytes() == b""
