"""Pictures from, and results to, an object store; fsspec's own in memory stands for one."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cliper.decode_pool import DecodePool
from cliper.errors import CliperError, MissingExtraError
from cliper.runner.manifest import Manifest, Record
from cliper.runner.run_dir import open_run_dir
from cliper.runner.sources import find_source
from cliper.runner.storage import Storage, folder_name, hide_credentials
from runs import CLASSES, content

fsspec = pytest.importorskip("fsspec")


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(1) as pool:
        yield pool


@pytest.fixture
def far_photos(store: Any, photos: Path) -> str:
    store.put(str(photos), "/bucket/photos", recursive=True)
    return "memory://bucket/photos"


def fetched(store: Any, address: str, folder: Path) -> Path:
    store.get(address, str(folder), recursive=True)
    return folder


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


def test_a_run_from_store_to_store(
    command: Any, store: Any, far_photos: str, photos: Path, clip_folder: Path, tmp_path: Path
) -> None:
    arguments = ["-c", CLASSES, "-m", clip_folder, "-f", "labels", "-f", "coco", "-f", "coco-panoptic", "-f", "cvat"]
    store.pipe("/bucket/photos/bad.png", b"no picture")
    ended = command("batch", far_photos, *arguments, "-o", "memory://bucket/out")
    assert ended.code == 1
    assert "wrote memory://bucket/out/coco.json" in ended.out
    (photos / "bad.png").write_bytes(b"no picture")
    assert command("batch", photos, *arguments, "-o", tmp_path / "near").code == 1
    far, near = content(fetched(store, "/bucket/out", tmp_path / "far")), content(tmp_path / "near")
    for found in (far, near):
        del found["run.json"]
        for line in found["manifest.jsonl"]:  # type: ignore[attr-defined]
            line["error"] = line["error"] and "bad"  # it has the picture's address
    assert far == near
    ended = command("batch", far_photos, *arguments, "-o", "memory://bucket/out")
    assert "memory://bucket/out holds a run already" in ended.err
    ended = command("batch", far_photos, *arguments, "-o", "memory://bucket/out", "--resume")
    assert "13 images: 12 done, 12 of them earlier, 1 failed" in ended.out
    assert (
        command("batch", photos, "-c", "dog", "-m", clip_folder, "-o", "memory://bucket/out", "--overwrite").code == 1
    )
    assert not store.exists("/bucket/out/p000.coco.json")
    assert store.exists("/bucket/out/p000.overlay.jpg")


CONFIG = {"size": 1}


def test_manifest_is_copied_while_the_run_goes_on(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_run_dir("memory://bucket/out") as run_dir:
        run_dir.start("batch", CONFIG, overwrite=False)
        with Manifest(run_dir.manifest) as manifest:
            for number in range(1, 4):  # the first one at once
                manifest.add(number, Record(f"p{number}"))
                run_dir.sync()
            # A run after a kill at this moment finds it.
            with open_run_dir("memory://bucket/out") as other:
                assert [json.loads(line)["input"] for line in other.manifest.read_bytes().splitlines()] == ["p1"]
    with open_run_dir("memory://bucket/out") as run_dir:  # all of them at the end, whatever the reason
        run_dir.check("batch", CONFIG, resume=True, overwrite=False)
        run_dir.start("batch", CONFIG, overwrite=False)
        with Manifest(run_dir.manifest) as manifest:
            for number in range(1, 4):
                manifest.keep(number, f"p{number}")
            manifest.finish()
            assert run_dir.finish([], {}) == ["memory://bucket/out/manifest.jsonl"]
    assert sorted(store.find("/bucket/out")) == ["/bucket/out/manifest.jsonl", "/bucket/out/run.json"]


def test_a_protocol_whose_library_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(MissingExtraError, match=r"needs a library that is not installed \(Install s3fs"):
        Storage("s3://bucket/photos")


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
    (photos / "list.txt").touch()
    (photos.parent / "link").symlink_to(photos)
    monkeypatch.chdir(photos)
    for address in (".", f"{photos}/", "list.txt", "../photos/list.txt", "../link", "garden/.."):
        assert folder_name(address, is_folder="list" not in address) == "photos"
    for address in ("s3://bucket/photos/", "memory://photos", "s3://bucket/photos/list.txt"):
        assert folder_name(address, is_folder="list" not in address) == "photos"
    assert folder_name("memory://list.txt", is_folder=False) == folder_name("/", is_folder=True) == ""


def test_credentials_are_not_shown(command: Any, photos: Path, clip_folder: Path, tmp_path: Path) -> None:
    text = "cannot read s3://key:se/cret@bucket/a b: see https://me:pw@host/x.jpg?X-Amz-Signature=12, 'memory://u:p@b'"
    assert hide_credentials("s3://key:secret@bucket/a") == "s3://bucket/a"
    assert "pw" not in hide_credentials(text)
    assert "12" not in hide_credentials(text)
    arguments = ["-c", "dog", "-m", clip_folder, "-o", tmp_path / "out"]
    (photos / "list.txt").write_text(f"memory://me:secret@bucket/none.png\n{photos}/p000.png\n")
    ended = command("batch", photos / "list.txt", *arguments)
    assert ended.code == 1
    assert "bucket/none.png" in ended.err
    assert "secret" not in ended.err + ended.out + (tmp_path / "out" / "manifest.jsonl").read_text()
    ended = command("batch", "memory://me:secret@bucket/nothing", *arguments)
    assert (ended.code, "secret" in ended.err) == (2, False)


def test_a_key_that_the_store_refuses_fails_its_image(
    command: Any, store: Any, photos: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = type(store).put_file

    def refuse(self: Any, local: str, remote: str, **options: Any) -> Any:
        if "p003" in remote:
            raise OSError(5, "KeyTooLongError: your key is too long")
        return put(self, local, remote, **options)

    monkeypatch.setattr(type(store), "put_file", refuse)
    ended = command("batch", photos, "-c", "dog", "-m", clip_folder, "-o", "memory://bucket/out", "-f", "labels")
    assert ended.code == 1
    assert "12 images: 11 done, 1 failed" in ended.out
    assert "p003.jpg: cannot write 'memory://bucket/out/p003.labels.png' (KeyTooLongError" in ended.err


def test_a_file_that_is_too_large_fails_by_its_size(
    store: Any, pool: DecodePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cliper.runner.items.MAX_FILE_BYTES", 1000)
    store.pipe("/bucket/photos/large.png", bytes(1001))
    read = type(store.open("/bucket/photos/large.png")).read
    monkeypatch.setattr(type(store.open("/bucket/photos/large.png")), "read", lambda *_: pytest.fail("it is read"))
    (item,) = find_source("memory://bucket/photos").items()
    with pytest.raises(CliperError, match=r"expected a file of at most .*'memory://bucket/photos/large.png'"):
        item.decode(pool)
    assert read
    for suffix, mode in ((".tar", "w"), (".tgz", "w:gz")):
        with tarfile.open(tmp_path / f"t{suffix}", mode) as tar:
            (tmp_path / "large.png").write_bytes(bytes(1001))
            tar.add(tmp_path / "large.png", "large.png")
        (item,) = find_source(str(tmp_path / f"t{suffix}")).items()
        with pytest.raises(CliperError, match="expected a file of at most"):
            item.decode(pool)
