"""The folder of pictures that the operator has opened to Label Studio's tasks, and nothing outside of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from label_studio_asks import data_address, predict

from cliper.errors import ImageError, InputError
from cliper.web.service.folder import PictureFolder


@pytest.fixture
def uploads(tmp_path: Path, picture_file: bytes) -> Path:
    folder = tmp_path / "uploads"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "a b.png").write_bytes(picture_file)
    (tmp_path / "outside.png").write_bytes(picture_file)
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "up").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.png")
    return folder


def test_pictures_of_the_folder_are_read(start: Any, uploads: Path, picture_file: bytes) -> None:
    service = start(folder=uploads)
    answered = predict(
        service, "/data/upload/1/a%20b.png", "/data/local-files/?d=1/a%20b.png", data_address(picture_file)
    )
    assert answered.status_code == 200
    first, second, third = answered.json()["results"]
    assert first == second == third
    assert first["result"]


@pytest.mark.parametrize(
    "path",
    [
        "../outside.png",
        "1/../../outside.png",
        "%2e%2e/outside.png",
        "..%2foutside.png",
        "link.png",
        "up/outside.png",
        "/etc/passwd",
        "1",
        "",
        "pipe.png",
        "no.png",
        "%00",
        "a" * 5000,
        "1/a%20b.png/x",
    ],
)
def test_nothing_outside_of_the_folder_is_read(uploads: Path, path: str) -> None:
    folder = PictureFolder(uploads)
    for address in (f"/data/upload/{path}", f"/data/local-files/?d={path}"):
        with pytest.raises(ImageError, match=r"got nothing there|no other is opened"):
            folder.read(address, 10**6)


@pytest.mark.parametrize(
    "address", ["//host/data/upload/1/a.png", "http://h/data/upload/1/a.png", "/data/upload/1/a.png?x=1"]
)
def test_other_addresses_are_refused(uploads: Path, address: str) -> None:
    with pytest.raises(ImageError, match="no other is opened"):
        PictureFolder(uploads).read(address, 10**6)


def test_a_large_file_and_a_missing_folder(uploads: Path) -> None:
    with pytest.raises(ImageError, match=r"at most 0\.0001 MB"):
        PictureFolder(uploads).read("/data/upload/1/a%20b.png", 100)
    with pytest.raises(InputError, match="expected a folder"):
        PictureFolder(uploads / "no")
