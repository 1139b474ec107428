"""A result as an archive."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from cliper.errors import ClassListError, InputError, OutputError, ShapeError
from cliper.formats import read_npz, write_npz

FLOATS = st.floats(0, 1, width=32)
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


def result(**changes: Any) -> dict[str, Any]:
    return {
        "labels": np.array([[0, 1], [2, 2]]),
        "scores": np.full((2, 2, 2), 0.25, dtype=np.float32),
        "classes": ["dog", "трава"],
        "confidence": [0.5, 1.0],
        **changes,
    }


@st.composite
def results(draw: st.DrawFn) -> dict[str, Any]:
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    classes = draw(st.lists(NAMES, max_size=4))
    dtype = draw(st.sampled_from([np.uint8, np.uint16, np.int64]))
    return {
        "labels": draw(npst.arrays(dtype, (height, width), elements=st.integers(0, 200))),
        "scores": draw(npst.arrays(np.float32, (len(classes), height, width), elements=FLOATS)),
        "classes": classes,
        "confidence": draw(npst.arrays(np.float32, len(classes), elements=FLOATS)),
    }


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(given_result=results())
def test_round_trip(tmp_path: Path, given_result: dict[str, Any]) -> None:
    write_npz(tmp_path / "a.npz", **given_result)
    read = read_npz(tmp_path / "a.npz")
    assert read.classes == tuple(given_result["classes"])
    assert read.labels.dtype == given_result["labels"].dtype
    assert read.scores.dtype == read.confidence.dtype == np.float32
    for name in ("labels", "scores", "confidence"):
        np.testing.assert_array_equal(getattr(read, name), given_result[name])


def test_plain_numpy_reads_it_and_no_suffix_is_added(tmp_path: Path) -> None:
    write_npz(tmp_path / "a", **result())
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    with np.load(tmp_path / "a", allow_pickle=False) as archive:
        assert archive["classes"].tolist() == ["dog", "трава"]


def test_same_result_same_bytes(tmp_path: Path) -> None:
    write_npz(tmp_path / "a", **result())
    write_npz(tmp_path / "b", **result())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"labels": np.zeros((3, 2), int)}, ShapeError, r"\[3, 2\]"),
        ({"scores": np.zeros((1, 2, 2))}, ShapeError, r"\[1, 2, 2\]"),
        ({"confidence": [1.0]}, ShapeError, r"\[1\]"),
        ({"classes": ["dog"]}, ShapeError, "C classes"),
        ({"labels": np.zeros((2, 2))}, InputError, "float64"),
        ({"classes": ["dog", "grass\0"]}, ClassListError, "null"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, changes: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        write_npz(tmp_path / "a.npz", **result(**changes))
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(stream: Any, **_: Any) -> None:
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OutputError, match="disk is full"):
        write_npz(tmp_path / "new" / "a.npz", **result())
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_refused(tmp_path: Path) -> None:
    write_npz(tmp_path / "good", **result())
    path = tmp_path / "bad.npz"
    good = (tmp_path / "good").read_bytes()
    damaged = bytearray(good)
    damaged[60:80] = bytes(20)
    for content in (b"", b"words", good[: len(good) // 2], bytes(damaged)):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.npz"):
            read_npz(path)
    np.savez(path, labels=[[1]])
    with pytest.raises(InputError, match="scores"):
        read_npz(path)
    np.save(tmp_path / "array.npy", [1])
    with pytest.raises(InputError, match="something else"):
        read_npz(tmp_path / "array.npy")
    with pytest.raises(InputError, match="nothing there"):
        read_npz(tmp_path / "no.npz")


def test_objects_that_could_run_code_are_refused(tmp_path: Path) -> None:
    objects = np.array([print, "dog"], dtype=object)
    np.savez(tmp_path / "a.npz", **result(classes=objects))
    with pytest.raises(InputError, match="pickle"):
        read_npz(tmp_path / "a.npz")


def test_shapes_are_checked_on_reading_too(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **result(confidence=[1.0]))
    with pytest.raises(ShapeError, match=r"a\.npz"):
        read_npz(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", **result(classes=[1, 2]))
    with pytest.raises(InputError, match="names as text"):
        read_npz(tmp_path / "b.npz")
