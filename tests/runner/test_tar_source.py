"""Images of tars, of whatever kind, read where they lie; what is damaged is told."""

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
from cliper.runner.sources import find_source
from runs import names_of

Draw = Callable[..., Image.Image]


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
    assert names_of(source) == [f"s/{number:06}.png" for number in range(5)]
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


@pytest.mark.parametrize("damage", ["cut in a image", "cut in a header", "garbage", "zeroed gzip"])
def test_a_damaged_tar_gives_what_comes_before(tmp_path: Path, pool: DecodePool, make_image: Draw, damage: str) -> None:
    files = {f"{number}.png": png(make_image, number) for number in range(6)}
    compressed = damage == "zeroed gzip"
    path = tar_of(tmp_path / ("t.tgz" if compressed else "t.tar"), files, "w:gz" if compressed else "w")
    with tarfile.open(path) as tar:
        begin = tar.getmembers()[3].offset
    data = path.read_bytes()
    path.write_bytes(
        {
            "cut in a image": data[: begin + 700],
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


def test_end_of_a_tar(tmp_path: Path, make_image: Draw) -> None:
    """Its end mark may be missing, and anything may follow it."""
    whole = tar_of(tmp_path / "whole.tar", {"a.png": png(make_image, 0)}).read_bytes()
    short = whole.rstrip(b"\0")
    for name, data in {"short.tar": short + bytes(-len(short) % 512), "long.tar": whole + b"a note" * 200}.items():
        (tmp_path / name).write_bytes(data)
        assert names_of(find_source(str(tmp_path / name))) == ["a.png"]


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
def test_tars_one_behind_the_other(tmp_path: Path, pool: DecodePool, make_image: Draw, suffix: str) -> None:
    mode = "w:gz" if suffix == ".tgz" else "w"
    parts = [tar_of(tmp_path / f"{n}{suffix}", {f"{n}.png": png(make_image, n)}, mode) for n in range(3)]
    path = tmp_path / f"all{suffix}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert names_of(find_source(str(path))) == ["0.png", "1.png", "2.png"]
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


def test_names_with_a_dot_in_a_tar(tmp_path: Path, pool: DecodePool, make_image: Draw) -> None:
    files = {"._a.png": b"x", "./a.png": png(make_image, 0), "b/._c.png": b"x", ".d/e.png": b"x", "../f.png": b""}
    assert names_of(find_source(str(tar_of(tmp_path / "t.tar", files)))) == ["a.png", "f.png"]


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
