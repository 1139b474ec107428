"""The manifest: what is written stays, half a line does not, and the end is in the order of the run."""

from __future__ import annotations

import errno
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cliper.errors import OutputError
from cliper.runner.manifest import CONFLICT, Manifest, Record, parse_record, read_manifest

# Any text, also that which comes of file names that are no text.
NAMES = st.text(st.characters(exclude_categories=()))


@given(NAMES, st.lists(NAMES), st.dictionaries(st.text(), st.floats(0, 1)), st.booleans())
def test_a_record_comes_back_from_its_line(name: str, outputs: list[str], areas: dict[str, float], done: bool) -> None:
    record = (
        Record(name, tuple(outputs), areas=areas, details={"width": 3, "height": 4})
        if done
        else Record.failed(name, "a\nb  c")
    )
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


@pytest.mark.parametrize("written", [None, 5])
def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int | None) -> None:
    path = tmp_path / "manifest.jsonl"
    with Manifest(path) as manifest:
        manifest.add(1, Record("a"))
        disk = manifest._writer

        class FullDisk(io.FileIO):
            def write(self, data: Any) -> int:
                if written is None:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return super().write(data[:written]) or 0

        with monkeypatch.context() as patch, FullDisk(path, "ab") as full:
            patch.setattr(manifest, "_writer", full)
            with pytest.raises(OutputError, match=r"cannot write .*manifest.jsonl: "):
                manifest.add(2, Record("b"))
        assert manifest._writer is disk
        manifest.add(2, Record("b"))
    assert path.read_bytes() == Record("a").line() + Record("b").line()


def test_of_two_images_with_one_output_key_the_last_that_was_done_is_known(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    lines = [Record("a.png"), Record("b.png"), Record("a.bmp"), Record.failed("b.bmp", CONFLICT + "b.png")]
    path.write_bytes(b"".join(record.line() for record in lines))
    with Manifest(path, lambda name: name.partition(".")[0]) as manifest:
        found = {name: manifest.find(name) for name in ("a.png", "a.bmp", "b.png", "b.bmp")}
    assert found == {"a.png": None, "a.bmp": Record("a.bmp"), "b.png": Record("b.png"), "b.bmp": None}
