"""Pictures of tars, of whatever kind, read where they lie; what is damaged is told."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cliper.decode_pool import DecodePool
from cliper.errors import ImageError, InputError
from cliper.runner.items import Source
from cliper.runner.sources import find_source

Draw = Callable[..., Image.Image]


def names(source: Source) -> list[str]:
    items = list(source.items())
    assert [item.number for item in items] == list(range(1, len(items) + 1))
    assert source.count() in (None, len(items))
    return [item.name for item in items]


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
def test_a_tar_in_webdataset_layout(tmp_path: Path, pool: DecodePool, make_image: Draw, suffix: str) -> None:
    files: dict[str, bytes] = {}
    for number in range(5):
        files[f"s/{number:06}.json"] = b"{}"
        files[f"s/{number:06}.png"] = png(make_image, number)
    path = tar_of(tmp_path / f"t{suffix}", files, "w:" + suffix.removeprefix(".tar").removeprefix("."))
    source = find_source(str(path))
    assert names(source) == [f"s/{number:06}.png" for number in range(5)]
    assert source.is_sequential is (suffix != ".tar")
    for number, item in enumerate(source.items()):
        # The place in an uncompressed tar is all that another machine needs.
        item = item if source.is_sequential else pickle.loads(pickle.dumps(item))
        assert (item.data is None) is not source.is_sequential
        assert np.array_equal(item.decode(pool), np.asarray(make_image(40, 30, seed=number)))


def test_odd_members_of_a_tar(tmp_path: Path, pool: DecodePool, make_image: Draw) -> None:
    path = tar_of(tmp_path / "t.tar", {"../../up.png": png(make_image, 0), "/abs.png": b"", "bad.png": b"text"})
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    items = list(find_source(str(path)).items())
    assert [item.name for item in items] == ["up.png", "abs.png", "bad.png", "link.png"]
    assert items[0].decode(pool).shape == (30, 40, 3)
    for item, words in zip(items[1:], ("0 bytes", "something else: .*bad.png", "a link to '/etc/passwd'"), strict=True):
        with pytest.raises(ImageError, match=words):
            item.decode(pool)


@pytest.mark.parametrize("damage", ["cut in a picture", "cut in a header", "garbage", "zeroed gzip"])
def test_a_damaged_tar_gives_what_comes_before(tmp_path: Path, pool: DecodePool, make_image: Draw, damage: str) -> None:
    files = {f"{number}.png": png(make_image, number) for number in range(6)}
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
    with pytest.raises(InputError, match=r"expected a whole tar, got a damaged one .* after image \d"):
        found.extend(item.name for item in find_source(str(path)).items())
    assert found[:3] == ["0.png", "1.png", "2.png"]
    assert len(found) < 6


def test_a_tar_without_its_end_mark_is_whole(tmp_path: Path, pool: DecodePool, make_image: Draw) -> None:
    path = tar_of(tmp_path / "t.tar", {"a.png": png(make_image, 0)})
    path.write_bytes(path.read_bytes().rstrip(b"\0") + b"\0" * (-len(path.read_bytes().rstrip(b"\0")) % 512))
    assert names(find_source(str(path))) == ["a.png"]


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
def test_tars_one_behind_the_other(tmp_path: Path, pool: DecodePool, make_image: Draw, suffix: str) -> None:
    mode = "w:gz" if suffix == ".tgz" else "w"
    parts = [tar_of(tmp_path / f"{n}{suffix}", {f"{n}.png": png(make_image, n)}, mode) for n in range(3)]
    path = tmp_path / f"all{suffix}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert names(find_source(str(path))) == ["0.png", "1.png", "2.png"]
    for number, item in enumerate(find_source(str(path)).items()):
        assert np.array_equal(item.decode(pool), np.asarray(make_image(40, 30, seed=number)))
    # Damage in the second is damage of the whole.
    data = bytearray(path.read_bytes())
    if suffix == ".tar":
        begin = parts[0].stat().st_size
        path.write_bytes(data[: begin + 700])
    else:
        path.write_bytes(data[:-30])
    with pytest.raises(InputError, match="expected a whole tar, got a damaged one"):
        list(find_source(str(path)).items())


def test_a_tar_with_something_behind_its_end(tmp_path: Path, pool: DecodePool, make_image: Draw) -> None:
    path = tar_of(tmp_path / "t.tar", {"a.png": png(make_image, 0)})
    path.write_bytes(path.read_bytes() + b"a note" * 200)
    assert names(find_source(str(path))) == ["a.png"]


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_an_old_tar(tmp_path: Path, pool: DecodePool, make_image: Draw, suffix: str) -> None:
    """Of the seventh edition of Unix, as ``tar --format=v7``: without a mark of its kind."""
    whole = tar_of(tmp_path / f"t{suffix}", {"a.png": png(make_image, 0)}, f"w:{suffix[5:]}")
    data = bytearray(tarfile.TarInfo("a.png").tobuf(tarfile.USTAR_FORMAT))
    picture = png(make_image, 0)
    data[124:136] = b"%011o\0" % len(picture)
    data[257:512] = bytes(255)
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data)
    data += picture + bytes(-len(picture) % 512) + bytes(1024)
    if suffix == ".tar":
        whole.write_bytes(data)
    else:
        import gzip

        whole.write_bytes(gzip.compress(bytes(data)))
    assert names(find_source(str(whole))) == ["a.png"]
    assert next(find_source(str(whole)).items()).decode(pool).shape == (30, 40, 3)


def test_names_with_a_dot_in_a_tar(tmp_path: Path, pool: DecodePool, make_image: Draw) -> None:
    files = {"._a.png": b"x", "./a.png": png(make_image, 0), "b/._c.png": b"x", ".d/e.png": b"x", "../f.png": b""}
    assert names(find_source(str(tar_of(tmp_path / "t.tar", files)))) == ["a.png", "f.png"]


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
def test_hard_links_in_a_tar(tmp_path: Path, pool: DecodePool, make_image: Draw, suffix: str) -> None:
    path = tmp_path / f"t{suffix}"
    with tarfile.open(path, "w:gz" if suffix == ".tgz" else "w") as tar:
        for name, target in (("data/a", None), ("b.png", "data/a"), ("c.png", "./data/a"), ("d.png", "nothing")):
            member = tarfile.TarInfo(name)
            data = png(make_image, 5) if target is None else b""
            member.size = len(data)
            if target is not None:
                member.type, member.linkname = tarfile.LNKTYPE, target
            tar.addfile(member, io.BytesIO(data))
    items = list(find_source(str(path)).items())
    assert [item.name for item in items] == ["b.png", "c.png", "d.png"]
    for item in items[: 2 if suffix == ".tar" else 0]:
        assert np.array_equal(item.decode(pool), np.asarray(make_image(40, 30, seed=5)))
    for item in items[2 if suffix == ".tar" else 0 :]:
        with pytest.raises(ImageError, match=r"a link to '.*' in the tar"):
            item.decode(pool)


def test_a_member_that_memory_does_not_hold_is_no_damaged_tar(
    tmp_path: Path, pool: DecodePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*_: object) -> bytes:
        raise MemoryError

    packed = find_source(str(tar_of(tmp_path / "in.tar.gz", {"a.png": b"x"}, "w:gz")))
    (plain,) = find_source(str(tar_of(tmp_path / "in.tar", {"a.png": b"x"}))).items()
    monkeypatch.setattr("tarfile.ExFileObject.read", run_out)
    monkeypatch.setattr("cliper.runner.items.open_file", run_out)
    for item in (*packed.items(), plain):
        with pytest.raises(ImageError, match="out of memory"):
            item.decode(pool)
