"""What annotation tools need to know of where a run's pictures lie."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize("relative", [False, True])
def test_labelme_finds_pictures_of_a_folder_and_a_list(
    batch: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (photos / "list.txt").write_text(f"p000.png\n{photos}/garden/p001.jpg\n")
    for number, source in enumerate((photos, photos / "list.txt")):
        out = tmp_path / "deep" / f"out{number}"
        given = source.relative_to(tmp_path) if relative else source
        assert batch(given, "-f", "labelme", out=out.relative_to(tmp_path) if relative else out).code == 0
        found = list(out.rglob("p*.json"))
        assert len(found) == (12, 2)[number]
        for path in found:
            picture = path.parent / json.loads(path.read_text())["imagePath"]
            assert picture.samefile(next(photos.rglob(f"{path.stem}.*")))


def test_label_studio_addresses_begin_with_the_name_of_the_folder(batch: Any, photos: Path, tmp_path: Path) -> None:
    (photos / "list.txt").write_text("garden/p001.jpg\n")
    with tarfile.open(photos / "photos.tar", "w") as tar:
        tar.add(photos / "garden" / "p001.jpg", "garden/p001.jpg")
    for number, source in enumerate((photos, photos / "list.txt", photos / "photos.tar")):
        out = tmp_path / f"out{number}"
        assert batch(source, "-f", "label-studio", out=out).code == 0
        tasks = json.loads((out / "label-studio.json").read_text())
        assert len(tasks) == (12, 1, 1)[number]
        for task in tasks:
            begin, _, address = task["data"]["image"].partition("?d=")
            assert begin == "/data/local-files/"
            assert (photos.parent / address).is_file()
            assert task["predictions"][0]["model_version"] == "tiny"
