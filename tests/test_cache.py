"""The cache folder, and the caches of text embeddings on disk and in memory."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cliper.cache import LRUTextCache, SQLiteTextCache, cache_folder

VECTOR = torch.tensor([1.0, -2.0, 0.5])
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
numbers = st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=5).map(torch.tensor)


@settings(max_examples=25)
@given(st.dictionaries(words, numbers, max_size=6), st.lists(words, max_size=3), words)
def test_embeddings_are_read_back_bit_for_bit(rows: dict[str, torch.Tensor], templates: list[str], other: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deep" / "down" / "a.sqlite"
        SQLiteTextCache(path).put("print", templates, rows)
        found = SQLiteTextCache(path).get("print", templates, [*rows, other])
        assert set(found) == set(rows)
        assert all(torch.equal(found[name], rows[name]) and found[name].dtype == torch.float32 for name in rows)
        assert SQLiteTextCache(path).get("another", templates, list(rows)) == {}
        assert SQLiteTextCache(path).get("print", [*templates, other], list(rows)) == {}


def test_many_prompts_in_one_lookup(tmp_path: Path) -> None:
    rows = {f"prompt {i}": torch.tensor([float(i)]) for i in range(1501)}
    cache = SQLiteTextCache(tmp_path / "a.sqlite")
    cache.put("print", ["{}"], rows)
    found = cache.get("print", ["{}"], list(rows))
    assert {name: float(vector) for name, vector in found.items()} == {f"prompt {i}": float(i) for i in range(1501)}


def test_cache_folder_follows_environment_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLIPER_CACHE", "~/own")
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("CLIPER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "cliper"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / ".cache" / "cliper"
    assert not cache_folder().exists()


def damage_garbage(path: Path) -> None:
    path.write_bytes(b"this is not a database" * 100)


def damage_middle(path: Path) -> None:
    SQLiteTextCache(path).put("print", ["{}"], {f"prompt {i}": torch.ones(200) for i in range(50)})
    content = bytearray(path.read_bytes())
    content[100:6000] = b"\xff" * 5900
    path.write_bytes(content)


def damage_table(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE embeddings (something TEXT)")
    database.close()


def damage_folder(path: Path) -> None:
    path.mkdir(parents=True)


def damage_parent(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("a file where a folder should be")


def damage_read_only(path: Path) -> None:
    # Permissions do not stop root, as which tests often run; /proc is read-only for every user.
    path.parent.rmdir()
    path.parent.symlink_to("/proc")


@pytest.mark.parametrize(
    "damage", [damage_garbage, damage_middle, damage_table, damage_folder, damage_parent, damage_read_only]
)
def test_unusable_file_causes_one_warning_and_no_error(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "cache" / "a.sqlite"
    path.parent.mkdir()
    damage(path)
    cache = SQLiteTextCache(path)

    def use() -> None:
        assert cache.get("print", ["{}"], ["prompt 1"]) == {}
        cache.put("print", ["{}"], {"dog": VECTOR})

    with pytest.warns(UserWarning, match="text embeddings are not cached.*CLIPER_CACHE") as caught:
        use()
    assert len(caught) == 1
    assert str(path) in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.put("print", ["{}"], {"dog": VECTOR})
        assert cache.get("print", ["{}"], ["dog"]) == {}


def test_lookup_creates_no_file(tmp_path: Path) -> None:
    assert SQLiteTextCache(tmp_path / "cache" / "a.sqlite").get("print", ["{}"], ["dog"]) == {}
    assert list(tmp_path.iterdir()) == []


def test_lru_reads_from_its_fallback_and_writes_nothing_to_it(tmp_path: Path) -> None:
    fallback = SQLiteTextCache(tmp_path / "a.sqlite")
    fallback.put("print", ["{}"], {"dog": VECTOR})
    memory = LRUTextCache(10, fallback)
    memory.put("print", ["{}"], {"cat": 2 * VECTOR})
    found = memory.get("print", ["{}"], ["dog", "cat", "cow"])
    assert set(found) == {"dog", "cat"}
    assert torch.equal(found["dog"], VECTOR)
    assert (memory.hits, memory.misses) == (2, 1)
    assert fallback.get("print", ["{}"], ["cat"]) == {}
    (tmp_path / "a.sqlite").unlink()
    assert set(memory.get("print", ["{}"], ["dog"])) == {"dog"}  # the first lookup copied it into memory


def test_read_only_file_is_still_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.sqlite"
    SQLiteTextCache(path).put("print", ["{}"], {"dog": VECTOR})
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda p, **o: connect(f"file:{p}?mode=ro", uri=True, **o))
    cache = SQLiteTextCache(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(cache.get("print", ["{}"], ["dog"])["dog"], VECTOR)
    with pytest.warns(UserWarning, match="readonly"):
        cache.put("print", ["{}"], {"cat": VECTOR})


def test_damaged_file_does_not_change_embeddings(own_cache: Path, clip_folder: Path, tiny: Any) -> None:
    import cliper

    own_cache.mkdir()
    damage_garbage(own_cache / "text-embeddings.sqlite")
    segmenter = cliper.Segmenter.from_pretrained(clip_folder, device="cpu")
    with pytest.warns(UserWarning, match="not cached"):
        got = segmenter.encode_text("dog; cat")
    # The other segmenter may have encoded them in a batch of another shape, which rounds sums in another order.
    torch.testing.assert_close(got, tiny.encode_text("dog; cat"), atol=1e-6, rtol=0)


WRITER = """
import sys, torch
from pathlib import Path
from cliper.cache import SQLiteTextCache
path, first = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for i in range(first, first + 60):
    SQLiteTextCache(path).put("print", ["{}"], {f"prompt {i}": torch.tensor([float(i)])})
    assert float(SQLiteTextCache(path).get("print", ["{}"], [f"prompt {i}"])[f"prompt {i}"]) == i
"""


@pytest.mark.full
def test_two_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    writers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", WRITER, str(path), str(first)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for first in (0, 30)  # half of what they write is the same
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert writer.returncode == 0, errors
        assert errors == ""
    found = SQLiteTextCache(path).get("print", ["{}"], [f"prompt {i}" for i in range(90)])
    assert sorted(float(vector) for vector in found.values()) == [float(i) for i in range(90)]
