"""TorchScript archives that would run code or fill the memory: each is refused, or read without doing so."""

from __future__ import annotations

import os
import pickle
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest

from cliper.checkpoints import check_folder
from cliper.checkpoints.torchscript import iter_torchscript
from cliper.errors import CheckpointError


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def tensor_pickle(*view: Any, storage: tuple[Any, ...] = ("storage", "FloatStorage", "0", "cpu", 4)) -> bytes:
    """A module with the tensor ``w`` that shows a view of a storage: offset, sides, strides."""

    def text(value: Any) -> bytes:
        return pickle.dumps(value, 0)[:-1]

    kinds = b"".join(b"ctorch\n%s\n" % v.encode() if v == "FloatStorage" else text(v) for v in storage)
    values = b"".join(map(text, view))
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n((" + kinds + b"tQ" + values + b"I00\nccollections\nOrderedDict\n)RtR"
    return b"c__torch__.m\nModel\n)\x81}S'w'\n" + tensor + b"sb."


def write_archive(path: Path, pickled: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("m/data.pkl", pickled)
        file.writestr("m/constants.pkl", b"")
        file.writestr("m/code/__torch__/m.py", "raise SystemExit")
        file.writestr("m/data/0", bytes(16))
    return path


STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
NO_STORAGE = ("storage", "FloatStorage", "9", "cpu", 4)
# 1 GB, if each of the 1,000 lists had its own 100,000 elements.
COPIES = b"(" + b"N" * 100_000 + b"lq\x00ctorch.jit._pickle\nbuild_intlist\nq\x01(" + b"h\x01h\x00\x85R" * 1000 + b"l."
# Name -> words of the refusal, the pickle, and how the archive is compressed.
HOSTILE: dict[str, tuple[str, bytes, int]] = {
    "function": ("could run code", b"cbuiltins\neval\n(S'1'\ntR.", STORED),
    "longer than its storage": ("inside its storage", tensor_pickle(0, (5,), (1,)), STORED),
    "behind its storage": ("inside its storage", tensor_pickle(10**12, (1,), (1,)), STORED),
    "expanded": ("inside its storage", tensor_pickle(0, (10**9,), (0,)), STORED),
    "backwards": ("sides above 0", tensor_pickle(0, (2,), (-1,)), STORED),
    "without storage": ("no item named", tensor_pickle(0, (1,), (1,), storage=NO_STORAGE), STORED),
    "compressed": ("uncompressed", tensor_pickle(0, (1,), (1,)), DEFLATED),
    "large": ("data.pkl of at most", bytes(2_000_001), DEFLATED),
    "with a table of 3 GB": ("fewer objects", b"}r\x00\xc2\xeb\x0b.", STORED),
    "with 64 GiB of text": ("only 1 remain", b"\x8e" + (2**36).to_bytes(8, "little") + b".", STORED),
    "with copies of a list": ("without tensors", COPIES, STORED),
    "deep": ("20 deep", b"c__torch__.m\nModel\n)\x81}S'm'\n" * 30 + b"N" + b"sb" * 30 + b".", STORED),
    "empty": ("cannot be read", b"", STORED),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archive_is_refused(tmp_path: Path, name: str) -> None:
    words, pickled, compression = HOSTILE[name]
    with pytest.raises(CheckpointError, match=words):
        check_folder(write_archive(tmp_path / "x.pt", pickled, compression), "clip")


def test_archive_of_many_lists_needs_little_memory(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "x.pt", COPIES)
    tracemalloc.start()
    try:
        assert list(iter_torchscript(path)) == []
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


def test_code_in_an_archive_is_not_run(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "x.pt", pickle.dumps(Command(tmp_path / "made"), 2))
    with pytest.raises(CheckpointError, match="could run code"):
        check_folder(path, "clip")
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]


def test_archive_of_the_hostile_tests_is_read_where_nothing_is_wrong(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "x.pt", tensor_pickle(1, (3,), (1,)))
    [(name, tensor)] = iter_torchscript(path)
    assert (name, tensor.tolist()) == ("w", [0.0, 0.0, 0.0])
