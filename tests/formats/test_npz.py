"""Results as numpy archives."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from cliper.errors import ClassListError, InputError, OutputError
from cliper.formats import SavedResult, read_npz, write_npz

FLOATS = st.floats(0, 1, width=32)
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)

RESULT = SavedResult(
    labels=np.array([[0, 1], [2, 2]]),
    scores=np.full((2, 2, 2), 0.25, dtype=np.float32),
    classes=("dog", "трава"),
    confidence=np.array([0.5, 1.0], dtype=np.float32),
)


@st.composite
def results(draw: st.DrawFn) -> SavedResult:
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    classes = tuple(draw(st.lists(NAMES, max_size=4)))
    dtype = draw(st.sampled_from([np.uint8, np.uint16, np.int64]))
    return SavedResult(
        labels=draw(npst.arrays(dtype, (height, width), elements=st.integers(0, 200))),
        scores=draw(npst.arrays(np.float32, (len(classes), height, width), elements=FLOATS)),
        classes=classes,
        confidence=draw(npst.arrays(np.float32, len(classes), elements=FLOATS)),
    )


def save(path: Path, **changes: Any) -> None:
    """An archive with other arrays, by numpy alone."""
    np.savez(path, **{**{name: np.array(value) for name, value in vars(RESULT).items()}, **changes})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(result=results())
def test_round_trip(tmp_path: Path, result: SavedResult) -> None:
    write_npz(tmp_path / "a.npz", result)
    read = read_npz(tmp_path / "a.npz")
    assert read.classes == result.classes
    assert read.labels.dtype == result.labels.dtype
    assert read.scores.dtype == read.confidence.dtype == np.float32
    for name in ("labels", "scores", "confidence"):
        np.testing.assert_array_equal(getattr(read, name), getattr(result, name))


def test_numpy_reads_the_archive_and_no_suffix_is_added(tmp_path: Path) -> None:
    write_npz(tmp_path / "a", RESULT)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    with np.load(tmp_path / "a", allow_pickle=False) as archive:
        assert archive["classes"].tolist() == ["dog", "трава"]


def test_same_result_gives_the_same_bytes(tmp_path: Path) -> None:
    write_npz(tmp_path / "a", RESULT)
    write_npz(tmp_path / "b", RESULT)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_class_name_with_a_null_character_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClassListError, match="null"):
        write_npz(tmp_path / "a.npz", replace(RESULT, classes=("dog", "grass\0")))
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(stream: Any, **_: Any) -> None:
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OutputError, match="disk is full"):
        write_npz(tmp_path / "new" / "a.npz", RESULT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "zeros", "incomplete", "array", "missing"])
def test_damaged_and_other_files_are_named(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    write_npz(path, RESULT)
    content = path.read_bytes()
    if damage == "incomplete":
        np.savez(path, labels=[[1]])
    elif damage == "array":
        with path.open("wb") as stream:
            np.save(stream, [1])
    elif damage == "missing":
        path.unlink()
    else:
        zeros = content[:60] + bytes(20) + content[80:]
        path.write_bytes({"empty": b"", "text": b"text", "truncated": content[:-100], "zeros": zeros}[damage])
    with pytest.raises(InputError, match=r"bad\.npz.*write it again") as caught:
        read_npz(path)
    assert len(str(caught.value).splitlines()) == 1


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.npz", classes=np.array([print, "dog"], dtype=object))
    with pytest.raises(InputError, match="pickle"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": np.zeros((3, 2), int)},
        {"labels": np.zeros((2, 2))},
        {"labels": np.zeros(4, int)},
        {"scores": np.zeros((1, 2, 2))},
        {"confidence": [1.0]},
        {"classes": [1, 2]},
        {"classes": "dog"},
    ],
    ids=repr,
)
def test_arrays_that_do_not_fit_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    save(tmp_path / "a.npz", **changes)
    with pytest.raises(InputError, match=r"a\.npz.*expected integer labels \[H, W\]"):
        read_npz(tmp_path / "a.npz")
