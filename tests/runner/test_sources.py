"""Where images come from: folders, lists, tars, by what lies at an address; in the same order each time."""

from __future__ import annotations

import itertools
import os
import tracemalloc
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cliper.decode_pool import DecodePool
from cliper.errors import ImageError, InputError
from cliper.runner.items import safe_name
from cliper.runner.sources import compile_patterns, find_source
from runs import names_of


def make(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3), "red").save(folder / path, "PNG")
    return folder


@given(st.text(st.sampled_from("ab./\0~"), max_size=20))
def test_a_name_never_leads_out(path: str) -> None:
    name = PurePosixPath(safe_name(path))
    assert not name.is_absolute()
    assert ".." not in name.parts
    assert "\0" not in str(name)
    assert safe_name(str(name)) in (str(name), "")


@pytest.mark.parametrize(
    ("pattern", "matched", "others"),
    [
        ("*.jpg", ["a.jpg", "b/c/a.jpg"], ["a.JPG", "a.jpg.png"]),
        ("b/*.jpg", ["b/a.jpg"], ["a.jpg", "b/c/a.jpg"]),
        ("b/**/*.jpg", ["b/a.jpg", "b/c/d/a.jpg"], ["a.jpg"]),
        ("**/x/*", ["x/a", "b/x/a"], ["b/x/c/a"]),
        ("a?[0-9].png", ["ab1.png", "c/ax2.png"], ["a1.png", "abc.png"]),
        ("[!a]*", ["b.x"], ["a.x"]),
        ("a.b+(c)", ["a.b+(c)"], ["axb+(c)"]),
        ("[x", ["[x"], ["x"]),
    ],
)
def test_patterns(pattern: str, matched: list[str], others: list[str]) -> None:
    is_meant = compile_patterns([pattern])
    assert [name for name in [*matched, *others] if is_meant(name)] == matched
    assert compile_patterns(["nothing", pattern])(matched[0])


def test_a_folder_gives_its_images_in_order(tmp_path: Path) -> None:
    folder = make(tmp_path, "b.png", "a/z.JPG", "a/b/c.webp", "a/b.tiff", "c/d.png", ".hidden/e.png", ".f.png")
    (folder / "notes.txt").write_text("no image")
    assert names_of(find_source(str(folder))) == ["a/b/c.webp", "a/b.tiff", "a/z.JPG", "b.png", "c/d.png"]
    assert names_of(find_source(str(folder), glob=["*.png"])) == ["b.png", "c/d.png"]
    assert names_of(find_source(str(folder), glob=["*.txt"])) == ["notes.txt"]
    assert names_of(find_source(str(folder), skip=str(folder / "a"))) == ["b.png", "c/d.png"]


def test_links_in_a_folder(tmp_path: Path, pool: DecodePool) -> None:
    folder = make(tmp_path / "in", "a/b.png")
    make(tmp_path / "else", "x.png")
    (folder / "elsewhere").symlink_to(tmp_path / "else")
    (folder / "a" / "up").symlink_to(folder)
    (folder / "dangling.png").symlink_to(tmp_path / "nothing")
    found = {item.name: item for item in find_source(str(folder)).items()}
    assert list(found) == ["a/b.png", "dangling.png", "elsewhere/x.png"]
    assert found["elsewhere/x.png"].decode(pool).shape == (3, 4, 3)
    with pytest.raises(ImageError, match="nothing there"):
        found["dangling.png"].decode(pool)


def test_a_folder_that_cannot_be_listed_is_an_item_that_failed(
    tmp_path: Path, pool: DecodePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path, "a/x.png", "b/y.png")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("cliper.runner.storage.os.scandir", refuse)
    first, second = find_source(str(folder)).items()
    assert (first.name, second.name) == ("a", "b/y.png")
    with pytest.raises(ImageError, match="Permission denied"):
        first.decode(pool)


def test_folders_of_results_are_passed_over(tmp_path: Path) -> None:
    folder = make(tmp_path / "in", "a.png", "out/x.png", "out/b/y.png", "mine/w.png")
    for path in ("out/run.json", "out/manifest.jsonl", "mine/manifest.jsonl"):
        (folder / path).write_text("{}")
    assert names_of(find_source(str(folder))) == ["a.png", "mine/w.png"]
    assert names_of(find_source(str(folder / "out"))) == ["b/y.png", "x.png"]  # who means it names it


def test_a_large_folder_takes_little_memory(tmp_path: Path) -> None:
    count = 3000
    for number in range(count):
        (tmp_path / f"photo-2024-05-{number:08d}.jpg").touch()
    source = find_source(str(tmp_path))
    tracemalloc.start()
    try:
        assert len(list(itertools.islice(source.items(), 1))) == 1
        listed = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Names of 26 characters: 75 bytes as Python's text, and 8 or 9 for their places in a list. docs/batch.md says so.
    assert listed / count < 100


def test_a_list_of_paths(tmp_path: Path, pool: DecodePool) -> None:
    make(tmp_path, "in/a.png", "other/b.png", "in/no-text-\udcff.png")
    lines = ["a.png", "", "  ", f"{tmp_path}/other/b.png\r", "../other/b.png", "missing.png", "no-text-\udcff.png"]
    (tmp_path / "in" / "list.txt").write_bytes("\ufeff".encode() + os.fsencode("\n".join(lines)))
    source = find_source(str(tmp_path / "in" / "list.txt"))
    assert names_of(source) == [
        "a.png",
        f"{tmp_path}/other/b.png"[1:],
        "other/b.png",
        "missing.png",
        "no-text-\udcff.png",
    ]
    items = list(source.items())
    assert [items[n].decode(pool).shape for n in (0, 1, 2, 4)] == [(3, 4, 3)] * 4
    with pytest.raises(ImageError, match="nothing there"):
        items[3].decode(pool)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["/data/a/x.png", "/data/b/c/y.png"], ["a/x.png", "b/c/y.png"]),
        (["/data/a/x.png"], ["x.png"]),
        (["/data/a/x.png", "/home/y.png"], ["data/a/x.png", "home/y.png"]),
        (["s3://bucket/a/x.png", "s3://bucket/a/b/y.png"], ["x.png", "b/y.png"]),
        (["/data/a/x.png", "b/y.png"], ["data/a/x.png", "b/y.png"]),
        (["/data/ab/x.png", "/data/a/y.png"], ["ab/x.png", "a/y.png"]),
    ],
)
def test_absolute_paths_lose_their_common_folder(tmp_path: Path, lines: list[str], expected: list[str]) -> None:
    (tmp_path / "list.txt").write_text("\n".join(lines))
    assert names_of(find_source(str(tmp_path / "list.txt"))) == expected
    assert names_of(find_source(str(tmp_path / "list.txt"), glob=["nothing", "x.png"])) == [expected[0]]


def test_what_is_no_source(tmp_path: Path) -> None:
    make(tmp_path, "a.png")
    (tmp_path / "a.docx").write_text("x")
    (tmp_path / "a.tar").write_text("this is no tar at all" * 60)
    os.mkfifo(tmp_path / "pipe.txt")
    for name, words in {
        "nothing": "got nothing there",
        "a.png": "for one image use `cliper segment`",
        "a.docx": "expected a folder, a list",
        "a.tar": "a damaged one or something else after image 0",
        "pipe.txt": "pipe or device",
    }.items():
        with pytest.raises(InputError, match=words):
            list(find_source(str(tmp_path / name)).items())
    for pattern in ("", "/", "a**b"):
        with pytest.raises(InputError, match="--glob"):
            find_source(str(tmp_path), glob=[pattern])
    with pytest.raises(InputError, match="--every: it is for videos"):
        find_source(str(tmp_path), every=2)
    with pytest.raises(InputError, match="expected a path or an address"):
        find_source("nonsense://bucket/a")


@pytest.mark.parametrize("name", ["photos", "t.tar", "l.txt", "a.mp4"])
def test_a_store_that_refuses(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    fsspec = pytest.importorskip("fsspec")

    class ServerError(Exception):
        """Of a library that this package knows nothing of."""

    def refuse(*_: object, **__: object) -> None:
        raise ServerError("403, message='Forbidden'\nurl=...")

    for method in ("info", "ls", "_open"):
        monkeypatch.setattr(type(fsspec.filesystem("memory")), method, refuse)
    with pytest.raises(InputError) as caught:
        list(find_source(f"memory://bucket/{name}").items())
    message = str(caught.value)
    assert f"'memory://bucket/{name}'" in message
    assert "\n" not in message
    assert "check the" in message
