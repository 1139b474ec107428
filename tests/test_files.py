"""Atomic writes, and JSON and text in files."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from cliper.errors import OutputError
from cliper.files import atomic_write, json_list, write_text


def listing(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def test_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "out.tar.png"
    with atomic_write(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".png"
        temporary.write_bytes(b"half")
        assert not target.exists()
        temporary.write_bytes(b"whole")
    assert listing(tmp_path / "a" / "b") == {"out.tar.png": b"whole"}


def test_relative_path_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with atomic_write("out") as temporary:
        temporary.write_bytes(b"1")
    assert listing(tmp_path) == {"out": b"1"}


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space")])
def test_failed_block_leaves_everything_as_it_was(tmp_path: Path, error: BaseException) -> None:
    old = tmp_path / "old.png"
    old.write_bytes(b"before")
    before = listing(tmp_path)
    for target in (old, tmp_path / "new.png", tmp_path / "x" / "y" / "new.png"):
        expected = OutputError if isinstance(error, OSError) else type(error)
        with pytest.raises(expected), atomic_write(target) as temporary:  # noqa: PT012
            temporary.write_bytes(b"half")
            raise error
        assert listing(tmp_path) == before


def test_full_disk_at_the_end_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(OutputError, match=r"out\.png.*disk is full; free space"),
        atomic_write(tmp_path / "out.png"),
    ):
        pass
    assert listing(tmp_path) == {}


def test_existing_empty_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="x"), atomic_write(tmp_path / "empty" / "a"):
        raise ValueError("x")
    assert listing(tmp_path) == {"empty": None}


def refused(path: Path | str) -> str:
    with pytest.raises(OutputError) as caught, atomic_write(path):
        pytest.fail("the block was entered")
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_impossible_targets_are_refused_before_the_block(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    before = listing(tmp_path)
    assert "folder" in refused(tmp_path)
    assert "folder" in refused("")
    assert "a part of the path is a file" in refused(tmp_path / "file" / "out.png")
    assert "a part of the path is a file" in refused(tmp_path / "file" / "deep" / "out.png")
    assert "shorten" in refused(tmp_path / ("x" * 300 + ".png"))
    assert "null" in refused("a\0b")
    assert refused(tmp_path / "file" / "two\nlines")
    assert listing(tmp_path) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "pipe" in refused(tmp_path / "pipe")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_missing_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    # Not by chmod, which does not stop root.
    def denied(*_: Any, **__: Any) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "open", denied)
    assert "choose another folder" in refused(tmp_path / "new" / "out.png")
    assert listing(tmp_path) == {}


@pytest.mark.skipif(os.name != "posix", reason="permission bits")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with atomic_write(tmp_path / "out") as temporary:
            temporary.write_bytes(b"1")
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_symbolic_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "real")
    with atomic_write(tmp_path / "link") as temporary:
        temporary.write_bytes(b"1")
    assert (tmp_path / "link").is_symlink()
    assert listing(tmp_path / "disk") == {"real": b"1"}


def test_text_is_written_in_pieces_with_plain_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "a", (f"{number} é\n" for number in range(3)))
    assert (tmp_path / "a").read_bytes() == "0 é\n1 é\n2 é\n".encode()


@pytest.mark.parametrize("items", [[], [1], [{"a": [2, None]}, "\udcff", "é"]])
def test_json_list_is_valid_ascii_json(items: list[Any]) -> None:
    text = "".join(json_list(items))
    assert json.loads(text) == items
    assert text.isascii()
