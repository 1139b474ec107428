"""Images from, and results to, an object store; fsspec's own in memory stands for one."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from cliper.decode_pool import DecodePool
from cliper.errors import CliperError
from cliper.runner.manifest import Manifest, Record
from cliper.runner.run_dir import open_run_dir
from cliper.runner.sources import find_source
from cliper.runner.storage import Storage, folder_name, hide_credentials
from runs import content

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def far_photos(store: Any, photos: Path) -> str:
    store.put(str(photos), "/bucket/photos", recursive=True)
    return "memory://bucket/photos"


def test_far_sources_are_as_near_ones(
    store: Any, pool: DecodePool, far_photos: str, photos: Path, tmp_path: Path
) -> None:
    near = list(find_source(str(photos)).items())
    far = list(find_source(far_photos).items())
    assert [item.name for item in far] == [item.name for item in near]
    assert all(a.decode(pool).tobytes() == b.decode(pool).tobytes() for a, b in zip(far, near, strict=True))
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        tar.add(photos, ".")
    store.put(str(tmp_path / "t.tar"), "/bucket/t.tar")
    tarred = {item.name: item for item in find_source("memory://bucket/t.tar").items()}
    assert all(tarred[item.name].decode(pool).tobytes() == item.decode(pool).tobytes() for item in near)
    store.pipe("/bucket/list.txt", f"photos/{near[0].name}\nmemory://bucket/photos/{near[1].name}\nno.png\n".encode())
    listed = list(find_source("memory://bucket/list.txt").items())
    assert [item.name for item in listed] == [f"photos/{near[0].name}", f"bucket/photos/{near[1].name}", "no.png"]
    assert listed[0].decode(pool).tobytes() == near[0].decode(pool).tobytes()
    assert listed[1].decode(pool).tobytes() == near[1].decode(pool).tobytes()
    with pytest.raises(CliperError, match=r"could not read 'memory://bucket/no.png'"):
        listed[2].decode(pool)


def test_run_from_store_to_store(batch: Any, store: Any, far_photos: str, photos: Path, tmp_path: Path) -> None:
    formats, out = ("labels", "coco", "coco-panoptic", "cvat", "hf-dataset"), "memory://bucket/out"
    flags = [flag for name in formats for flag in ("-f", name)]
    (photos / "bad.png").write_bytes(b"no image")
    store.pipe("/bucket/photos/bad.png", b"no image")
    ended = batch(far_photos, *flags, out=out)
    assert ended.code == 1
    assert "wrote memory://bucket/out/coco.json" in ended.out
    assert batch(photos, *flags, out=tmp_path / "near").code == 1
    store.get("/bucket/out", str(tmp_path / "far"), recursive=True)
    far, near = content(tmp_path / "far"), content(tmp_path / "near")
    for found in (far, near):
        del found["run.json"]
        for line in found["manifest.jsonl"]:  # type: ignore[attr-defined]
            line["error"] = line["error"] and "bad"  # it has the image's address
    assert far == near
    assert "memory://bucket/out holds a run already" in batch(far_photos, *flags, out=out).err
    # A file that is damaged, and one that has gone.
    store.pipe("/bucket/out/p003.coco.json", b"")
    for words in ("process the image again", "could not read it"):
        ended = batch(far_photos, *flags, "--resume", out=out)
        assert ended.code == 2
        assert words in ended.err
        ended = batch(far_photos, *flags, "--resume", out=out)
        assert "13 images: 12 done, 11 of them earlier, 1 failed" in ended.out
        assert store.cat("/bucket/out/coco.json") == far["coco.json"]
        store.rm_file("/bucket/out/p006.coco.json")
    assert batch(photos, "-f", "labels", "--overwrite", out=out, classes="dog").code == 1
    left = [name.removeprefix("/bucket/out/") for name in store.find("/bucket/out")]
    assert {name for name in left if not name.endswith(".labels.png")} == {"classes.txt", "run.json", "manifest.jsonl"}


def test_manifest_is_copied_while_the_run_goes_on(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_run_dir("memory://bucket/out") as run_dir:
        run_dir.start("batch", {}, overwrite=False)
        with Manifest(run_dir.manifest) as manifest:
            for number in range(1, 4):  # the first one at once
                manifest.add(number, Record(f"p{number}"))
                run_dir.sync()
            # A run after a kill at this moment finds it.
            with open_run_dir("memory://bucket/out") as other:
                assert [json.loads(line)["input"] for line in other.manifest.read_bytes().splitlines()] == ["p1"]
                store.pipe("/bucket/out/manifest.jsonl", b"newer")
            assert store.cat("/bucket/out/manifest.jsonl") == b"newer"  # nothing was added, so nothing is copied
    with open_run_dir("memory://bucket/out") as run_dir:  # all of them at the end, whatever the reason
        run_dir.check("batch", {}, resume=True, overwrite=False)
        run_dir.start("batch", {}, overwrite=False)
        with Manifest(run_dir.manifest) as manifest:
            for number in range(1, 4):
                manifest.keep(number, f"p{number}")
            manifest.finish()
            assert run_dir.finish([], {}) == ["memory://bucket/out/manifest.jsonl"]
    assert sorted(store.find("/bucket/out")) == ["/bucket/out/manifest.jsonl", "/bucket/out/run.json"]


@pytest.mark.parametrize("protocol", ["file", "local"])
def test_addresses_of_this_machine_are_paths(protocol: str, pool: DecodePool, photos: Path, tmp_path: Path) -> None:
    assert Storage(f"{protocol}://{tmp_path}/").local == tmp_path
    (photos / "list.txt").write_text(f"{protocol}://{photos}/p000.png\ngarden/p001.jpg\n")
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        tar.add(photos / "p000.png", "p000.png")
    for name in (photos, photos / "list.txt", tmp_path / "t.tar"):
        near = list(find_source(str(name)).items())
        assert near
        for one, other in zip(near, find_source(f"{protocol}://{name}").items(), strict=True):
            assert one == other
            assert one.decode(pool).tobytes() == other.decode(pool).tobytes()
    listed = next(find_source(str(photos / "list.txt")).items())
    assert (listed.name, listed.uri) == (str(photos / "p000.png")[1:], str(photos / "p000.png"))


def test_names_of_folders(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photos.parent / "link").symlink_to(photos)
    monkeypatch.chdir(photos)
    for uri in (".", f"{photos}/", "../link", "garden/..", "s3://bucket/photos/", "memory://photos"):
        assert folder_name(uri, is_folder=True) == "photos"
    for uri in ("list.txt", "../photos/list.txt", "s3://bucket/photos/list.txt"):
        assert folder_name(uri, is_folder=False) == "photos"
    assert folder_name("memory://list.txt", is_folder=False) == folder_name("/", is_folder=True) == ""


def test_credentials_are_not_shown(batch: Any, photos: Path, tmp_path: Path) -> None:
    text = "cannot read s3://key:se/cret@bucket/a b: see https://me:pw@host/x.jpg?X-Amz-Signature=12, 'memory://u:p@b'"
    assert hide_credentials("s3://key:secret@bucket/a") == "s3://bucket/a"
    assert "pw" not in hide_credentials(text)
    assert "12" not in hide_credentials(text)
    (photos / "list.txt").write_text(f"memory://me:secret@bucket/none.png\n{photos}/p000.png\n")
    ended = batch(photos / "list.txt")
    assert ended.code == 1
    assert "bucket/none.png" in ended.err
    assert "secret" not in ended.err + ended.out + (tmp_path / "out" / "manifest.jsonl").read_text()
    ended = batch("memory://me:secret@bucket/nothing")
    assert (ended.code, "secret" in ended.err) == (2, False)


def test_key_that_the_store_refuses_fails_its_image(
    batch: Any, store: Any, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = type(store).put_file

    def refuse(self: Any, local: str, remote: str, **options: Any) -> Any:
        if "p003" in remote:
            raise OSError(5, "KeyTooLongError: your key is too long")
        return put(self, local, remote, **options)

    monkeypatch.setattr(type(store), "put_file", refuse)
    ended = batch(photos, "-f", "labels", out="memory://bucket/out")
    assert ended.code == 1
    assert "12 images: 11 done, 1 failed" in ended.out
    assert "p003.jpg: cannot write 'memory://bucket/out/p003.labels.png' (KeyTooLongError" in ended.err


def test_file_that_is_too_large_fails_by_its_size(
    store: Any, pool: DecodePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cliper.runner.items.MAX_FILE_BYTES", 1000)
    store.pipe("/bucket/photos/large.png", bytes(1001))
    monkeypatch.setattr(type(store.open("/bucket/photos/large.png")), "read", lambda *_: pytest.fail("it is read"))
    (tmp_path / "large.png").write_bytes(bytes(1001))
    with tarfile.open(tmp_path / "t.tgz", "w:gz") as tar:
        tar.add(tmp_path / "large.png", "large.png")
    for uri in ("memory://bucket/photos", str(tmp_path / "t.tgz")):
        (item,) = find_source(uri).items()
        with pytest.raises(CliperError, match=r"expected a file of at most .*large.png'"):
            item.decode(pool)
