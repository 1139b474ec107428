"""The manifest: what is written stays, half a line does not, and the end is in the order of the run."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cliper.runner.manifest import Manifest, Record, parse_record, read_manifest

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
