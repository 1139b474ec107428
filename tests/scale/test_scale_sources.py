"""Where pictures come from: folders, lists, tars, by what lies at an address; in the same order each time."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cliper.errors import ImageError, InputError
from cliper.scale.globs import matcher
from cliper.scale.items import safe_name
from cliper.scale.sources import Source, find_source

Draw = Callable[..., Image.Image]


def names(source: Source) -> list[str]:
    items = list(source.items())
    assert [item.number for item in items] == list(range(1, len(items) + 1))
    assert source.count() in (None, len(items))
    return [item.name for item in items]


def make(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3), "red").save(folder / path, "PNG")
    return folder


# --- names and patterns ----------------------------------------------------------------------------------


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
    is_meant = matcher([pattern])
    assert [name for name in [*matched, *others] if is_meant(name)] == matched
    assert matcher(["nothing", pattern])(matched[0])


def test_patterns_that_are_none() -> None:
    for pattern in ("", "/", "[z-a]"):
        with pytest.raises(InputError, match="--glob"):
            matcher([pattern])


# --- folders ---------------------------------------------------------------------------------------------


def test_a_folder_gives_its_pictures_in_order(tmp_path: Path) -> None:
    folder = make(tmp_path, "b.png", "a/z.JPG", "a/b/c.webp", "a/b.tiff", "c/d.png", ".hidden/e.png", ".f.png")
    (folder / "notes.txt").write_text("no picture")
    assert names(find_source(str(folder))) == ["a/b/c.webp", "a/b.tiff", "a/z.JPG", "b.png", "c/d.png"]
    assert names(find_source(str(folder), glob=["*.png"])) == ["b.png", "c/d.png"]
    assert names(find_source(str(folder), glob=["*.txt"])) == ["notes.txt"]
    assert names(find_source(str(folder), skip=str(folder / "a"))) == ["b.png", "c/d.png"]


def test_links_in_a_folder(tmp_path: Path) -> None:
    folder = make(tmp_path / "in", "a/b.png")
    make(tmp_path / "else", "x.png")
    (folder / "elsewhere").symlink_to(tmp_path / "else")
    (folder / "a" / "up").symlink_to(folder)
    (folder / "dangling.png").symlink_to(tmp_path / "nothing")
    found = {item.name: item for item in find_source(str(folder)).items()}
    assert list(found) == ["a/b.png", "dangling.png", "elsewhere/x.png"]
    assert found["elsewhere/x.png"].read().size == (4, 3)
    with pytest.raises(ImageError, match="nothing there"):
        found["dangling.png"].read()


def test_a_folder_that_cannot_be_listed_is_an_item_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path, "a/x.png", "b/y.png")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("cliper.scale.places.os.scandir", refuse)
    first, second = find_source(str(folder)).items()
    assert (first.name, second.name) == ("a", "b/y.png")
    with pytest.raises(ImageError, match="Permission denied"):
        first.read()


def test_listing_is_lazy(tmp_path: Path) -> None:
    folder = make(tmp_path, "a/1.png", "b/2.png")
    items = find_source(str(folder)).items()
    assert next(items).name == "a/1.png"
    make(folder, "b/1.png")  # b has not been looked into yet
    assert [item.name for item in items] == ["b/1.png", "b/2.png"]


# --- lists -----------------------------------------------------------------------------------------------


def test_a_list_of_paths(tmp_path: Path) -> None:
    make(tmp_path, "in/a.png", "other/b.png", "in/no-text-\udcff.png")
    lines = ["a.png", "", "  ", f"{tmp_path}/other/b.png\r", "../other/b.png", "missing.png", "no-text-\udcff.png"]
    (tmp_path / "in" / "list.txt").write_bytes("\ufeff".encode() + os.fsencode("\n".join(lines)))
    source = find_source(str(tmp_path / "in" / "list.txt"))
    assert names(source) == [
        "a.png",
        f"{tmp_path}/other/b.png"[1:],
        "other/b.png",
        "missing.png",
        "no-text-\udcff.png",
    ]
    items = list(source.items())
    assert [items[n].read().size for n in (0, 1, 2, 4)] == [(4, 3)] * 4
    with pytest.raises(ImageError, match="nothing there"):
        items[3].read()


# --- tars ------------------------------------------------------------------------------------------------


def tar_of(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def png(draw: Draw, seed: int) -> bytes:
    stream = io.BytesIO()
    draw(40, 30, seed=seed).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_a_tar_in_webdataset_layout(tmp_path: Path, make_picture: Draw, suffix: str) -> None:
    files: dict[str, bytes] = {}
    for number in range(5):
        files[f"s/{number:06}.json"] = b"{}"
        files[f"s/{number:06}.png"] = png(make_picture, number)
    path = tar_of(tmp_path / f"t{suffix}", files, "w:" + suffix.removeprefix(".tar").removeprefix("."))
    source = find_source(str(path))
    assert names(source) == [f"s/{number:06}.png" for number in range(5)]
    assert source.held is (suffix != ".tar")
    for number, item in enumerate(source.items()):
        # The place in an uncompressed tar is all that another machine needs.
        item = item if source.held else pickle.loads(pickle.dumps(item))
        assert (item.held is None) is not source.held
        assert np.array_equal(np.asarray(item.read()), np.asarray(make_picture(40, 30, seed=number)))


def test_odd_members_of_a_tar(tmp_path: Path, make_picture: Draw) -> None:
    path = tar_of(tmp_path / "t.tar", {"../../up.png": png(make_picture, 0), "/abs.png": b"", "bad.png": b"text"})
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    items = list(find_source(str(path)).items())
    assert [item.name for item in items] == ["up.png", "abs.png", "bad.png", "link.png"]
    assert items[0].read().size == (40, 30)
    for item, words in zip(items[1:], ("0 bytes", "something else: .*bad.png", "a link to '/etc/passwd'"), strict=True):
        with pytest.raises(ImageError, match=words):
            item.read()


@pytest.mark.parametrize("damage", ["cut in a picture", "cut in a header", "garbage", "zeroed gzip"])
def test_a_damaged_tar_gives_what_comes_before(tmp_path: Path, make_picture: Draw, damage: str) -> None:
    files = {f"{number}.png": png(make_picture, number) for number in range(6)}
    compressed = damage == "zeroed gzip"
    path = tar_of(tmp_path / ("t.tgz" if compressed else "t.tar"), files, "w:gz" if compressed else "w")
    with tarfile.open(path) as tar:
        begin = tar.getmembers()[3].offset
    data = path.read_bytes()
    path.write_bytes(
        {
            "cut in a picture": data[: begin + 700],
            "cut in a header": data[: begin + 100],
            "garbage": data[:begin] + b"x" * 512 + data[begin + 512 :],
            "zeroed gzip": data[: len(data) * 2 // 3],
        }[damage]
    )
    found: list[str] = []
    with pytest.raises(InputError, match=r"expected a whole tar, got a damaged one .* after picture \d"):
        found.extend(item.name for item in find_source(str(path)).items())
    assert found[:3] == ["0.png", "1.png", "2.png"]
    assert len(found) < 6


def test_a_tar_without_its_end_mark_is_whole(tmp_path: Path, make_picture: Draw) -> None:
    path = tar_of(tmp_path / "t.tar", {"a.png": png(make_picture, 0)})
    path.write_bytes(path.read_bytes().rstrip(b"\0") + b"\0" * (-len(path.read_bytes().rstrip(b"\0")) % 512))
    assert names(find_source(str(path))) == ["a.png"]


# --- what is refused -------------------------------------------------------------------------------------


def test_what_is_no_source(tmp_path: Path) -> None:
    make(tmp_path, "a.png")
    (tmp_path / "a.docx").write_text("x")
    (tmp_path / "a.tar").write_text("this is no tar at all" * 60)
    os.mkfifo(tmp_path / "pipe.txt")
    for name, words in {
        "nothing": "got nothing there",
        "a.png": "for one picture use `cliper segment`",
        "a.docx": "expected a folder, a list",
        "a.tar": "it is no tar",
        "pipe.txt": "pipe or device",
    }.items():
        with pytest.raises(InputError, match=words):
            find_source(str(tmp_path / name))
    with pytest.raises(InputError, match="--every: it is for videos"):
        find_source(str(tmp_path), every=2)
    with pytest.raises(InputError, match="expected a path or an address"):
        find_source("nonsense://bucket/a")
