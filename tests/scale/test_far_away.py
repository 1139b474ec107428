"""Pictures from, and results to, an object store; fsspec's own in memory stands for one."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batch_runs import CLASSES, content

from cliper.errors import CliperError, InputError, MissingExtraError, OutputError
from cliper.scale.folder import MANIFEST
from cliper.scale.manifest import Manifest, Record
from cliper.scale.places import Place, folder_name, plain_address
from cliper.scale.sources import find_source
from cliper.scale.state import open_state

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def store() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()


@pytest.fixture
def far_photos(store: Any, photos: Path) -> str:
    store.put(str(photos), "/bucket/photos", recursive=True)
    return "memory://bucket/photos"


def fetched(store: Any, address: str, folder: Path) -> Path:
    store.get(address, str(folder), recursive=True)
    return folder


def test_far_sources_are_as_near_ones(store: Any, far_photos: str, photos: Path, tmp_path: Path) -> None:
    near = list(find_source(str(photos)).items())
    far = list(find_source(far_photos).items())
    assert [item.name for item in far] == [item.name for item in near]
    assert all(a.read().tobytes() == b.read().tobytes() for a, b in zip(far, near, strict=True))
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        tar.add(photos, ".")
    store.put(str(tmp_path / "t.tar"), "/bucket/t.tar")
    tarred = {item.name: item for item in find_source("memory://bucket/t.tar").items()}
    assert all(tarred[item.name].read().tobytes() == item.read().tobytes() for item in near)
    store.pipe("/bucket/list.txt", f"photos/{near[0].name}\nmemory://bucket/photos/{near[1].name}\nno.png\n".encode())
    listed = list(find_source("memory://bucket/list.txt").items())
    assert [item.name for item in listed] == [f"photos/{near[0].name}", f"bucket/photos/{near[1].name}", "no.png"]
    assert listed[0].read().tobytes() == near[0].read().tobytes()
    assert listed[1].read().tobytes() == near[1].read().tobytes()
    with pytest.raises(CliperError, match=r"could not read 'memory://bucket/no.png'"):
        listed[2].read()


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
    assert store.exists("/bucket/out/p000.overlay.png")


def test_what_is_done_is_copied_while_the_run_goes_on(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cliper.scale.state._EVERY", 0.0)
    with open_state("memory://bucket/out") as state:
        (state.folder / "run.json").write_text("{}")
        state.begun()
        with Manifest(state.folder / MANIFEST) as manifest:
            for number in range(1, 4):
                manifest.add(number, Record(f"p{number}"))
                state.saved()
            parts = [f"/bucket/out/manifest-parts/00000{number}.jsonl" for number in range(3)]
            assert sorted(store.find("/bucket/out")) == [*parts, "/bucket/out/run.json"]
            # Whoever comes after a kill at this moment finds all three.
            with open_state("memory://bucket/out") as other:
                lines = (other.folder / MANIFEST).read_bytes().splitlines()
                assert [json.loads(line)["input"] for line in lines] == ["p1", "p2", "p3"]
            manifest.add(4, Record("p4"))
    assert store.exists("/bucket/out/manifest-parts/000003.jsonl")  # on the way out, whatever the reason
    with open_state("memory://bucket/out") as state:
        state.begun()
        with Manifest(state.folder / MANIFEST) as manifest:
            for number in range(1, 5):
                manifest.keep(number, f"p{number}")
            manifest.finish()
            assert state.finished([state.folder / MANIFEST]) == ["memory://bucket/out/manifest.jsonl"]
    assert sorted(store.find("/bucket/out")) == ["/bucket/out/manifest.jsonl", "/bucket/out/run.json"]


def test_stores_that_refuse(store: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    place = Place("memory://bucket/out")
    monkeypatch.setattr(type(store), "put_file", refuse)
    with pytest.raises(OutputError, match=r"cannot write 'memory://bucket/out/a/b.txt': Permission denied"):
        place.put("a/b.txt", lambda path: path.write_text("x"))
    with pytest.raises(InputError, match=r"expected a file at 'memory://bucket/out/no.txt'"):
        place.download("no.txt", tmp_path / "no.txt")


def test_a_protocol_whose_library_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(MissingExtraError, match=r"needs a library that is not installed \(Install s3fs"):
        Place("s3://bucket/photos")


@pytest.mark.parametrize("protocol", ["file", "local"])
def test_addresses_of_this_machine_are_paths(protocol: str, photos: Path, tmp_path: Path) -> None:
    assert Place(f"{protocol}://{tmp_path}/").local == tmp_path
    (photos / "list.txt").write_text(f"{protocol}://{photos}/p000.png\ngarden/p001.jpg\n")
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        tar.add(photos / "p000.png", "p000.png")
    for name in (photos, photos / "list.txt", tmp_path / "t.tar"):
        near = list(find_source(str(name)).items())
        assert near
        for one, other in zip(near, find_source(f"{protocol}://{name}").items(), strict=True):
            assert one == other
            assert one.read().tobytes() == other.read().tobytes()
    listed = next(find_source(str(photos / "list.txt")).items())
    assert (listed.name, listed.address) == (str(photos / "p000.png")[1:], str(photos / "p000.png"))


def test_a_run_with_addresses_of_this_machine(
    command: Any, photos: Path, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = photos / "garden" / "out"
    arguments = ["-c", CLASSES, "-m", clip_folder, "-f", "labelme", "-f", "overlay"]
    assert command("batch", f"file://{photos}", *arguments, "-o", f"file://{out}").code == 0
    assert not (tmp_path / "file:").exists()
    # The same run by its path; what is in OUT is not taken for pictures.
    ended = command("batch", photos, *arguments, "-o", out, "--resume")
    assert "12 images: 12 done, 12 of them earlier" in ended.out
    ended = command("batch", f"file://{photos}", *arguments, "-o", photos)
    assert "another folder for results than for images" in ended.err
    for path in out.rglob("p*.json"):
        assert (path.parent / json.loads(path.read_text())["imagePath"]).is_file()


def test_a_list_at_the_root_of_a_store(store: Any, far_photos: str, photos: Path) -> None:
    name = "garden/p001.jpg"
    store.pipe("/list.txt", f"bucket/photos/{name}\n".encode())
    (item,) = find_source("memory://list.txt").items()
    assert (item.name, item.address) == (f"bucket/photos/{name}", f"memory://bucket/photos/{name}")
    assert item.read().size == (96, 64)
    assert [entry.name for entry in Place("memory://").entries()] == ["bucket", "list.txt"]
    assert [item.address for item in find_source("memory://").items()] == [
        f"{far_photos}/{item.name}" for item in find_source(str(photos)).items()
    ]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("file:///data/a b", "/data/a b"),
        ("local://x/y", "x/y"),
        ("file://", "."),
        ("https://host/photo/", "https://host/photo/"),
        ("memory://", "memory://"),
        ("photos/", "photos/"),
        ("://x", "://x"),
    ],
)
def test_plain_addresses(address: str, expected: str) -> None:
    assert plain_address(address) == plain_address(plain_address(address)) == expected


def test_names_of_folders(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photos / "list.txt").touch()
    (photos.parent / "link").symlink_to(photos)
    monkeypatch.chdir(photos)
    for address in (".", f"{photos}/", "list.txt", "../photos/list.txt", "../link", "garden/.."):
        assert folder_name(address, is_folder="list" not in address) == "photos"
    for address in ("s3://bucket/photos/", "memory://photos", "s3://bucket/photos/list.txt"):
        assert folder_name(address, is_folder="list" not in address) == "photos"
    assert folder_name("memory://list.txt", is_folder=False) == folder_name("/", is_folder=True) == ""
