"""``cliper batch`` with images that cannot be used, and what it refuses before any work."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hostile_images import gif_comment
from runs import Draw, by_input, make_photos, records


def break_in_every_way(folder: Path, draw: Draw) -> dict[str, str]:
    """Images that cannot be used, and words of the reasons."""
    draw(200, 150).save(folder / "truncated.jpg")
    (folder / "truncated.jpg").write_bytes((folder / "truncated.jpg").read_bytes()[:2000])
    draw(200, 150).save(folder / "damaged.png")
    data = bytearray((folder / "damaged.png").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    (folder / "damaged.png").write_bytes(data)
    (folder / "empty.webp").write_bytes(b"")
    (folder / "text.png").write_text("this is a text file")
    Image.new("RGB", (30_000, 2)).save(folder / "strip.png")
    Image.new("1", (20_000, 10_000)).save(folder / "bomb.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "hostile.gif").write_bytes(gif_comment(0.2))
    (folder / "dangling.jpg").symlink_to("nowhere")
    (folder / "around.jpg").symlink_to("around.jpg")
    (folder / "line\nbreak.png").write_bytes(b"x")
    return {
        "truncated.jpg": "truncated or damaged",
        "damaged.png": "truncated or damaged",
        "empty.webp": "0 bytes",
        "text.png": "something else",
        "strip.png": "at most 8192 patches",
        "bomb.png": "20000x10000",
        "pipe.png": "pipe or device",
        "hostile.gif": "bytes of comments",
        "dangling.jpg": "nothing there",
        "around.jpg": "could not open",
        "line\nbreak.png": "something else",
    }


def test_one_image_in_some_is_broken_in_every_way(
    batch: Any, photos: Path, tmp_path: Path, make_image: Draw, tree: Any
) -> None:
    reasons = break_in_every_way(photos / "garden", make_image)
    ended = batch(photos, "-f", "labels", "-f", "gallery")
    assert ended.code == 1
    assert "Traceback" not in ended.err
    found = by_input(tmp_path / "out")
    failed = {name: line["error"] for name, line in found.items() if line["status"] == "failed"}
    assert {name.removeprefix("garden/") for name in failed} == set(reasons)
    for name, words in reasons.items():
        assert words in failed[f"garden/{name}"]
        assert "\n" not in failed[f"garden/{name}"]
    assert sum(line["status"] == "done" for line in found.values()) == 12
    assert len([name for name in tree(tmp_path / "out") if name.endswith(".labels.png")]) == 12
    assert f"{12 + len(reasons)} images: 12 done, {len(reasons)} failed" in ended.out


def test_a_format_that_cannot_hold_a_image(
    batch: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: Any
) -> None:
    monkeypatch.setattr("cliper.formats.overlay._FORMATS", {".webp": ("WEBP", 90, {"quality": 90})})
    ended = batch(photos, "-f", "labels", "-f", "overlay-webp")
    assert ended.code == 1
    found = by_input(tmp_path / "out")
    failed = [name for name, line in found.items() if line["status"] == "failed"]
    assert failed
    assert "at most 90 pixels a side" in found[failed[0]]["error"]
    # All files of a image, or none.
    stems = {name.rpartition(".")[0] for name in failed}
    assert not [name for name in tree(tmp_path / "out") if name.split(".")[0] in stems]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--format", "cocoo"], "did you mean coco?"),
        (["--workers", "0"], "'--workers': 0 is not in the range x>=1"),
        (["--resume", "--overwrite"], "got both"),
        (["--min-area", "-1"], "min_area: expected pixels or a share such as 0.01%, got '-1'"),
        (["--tolerance", "-1"], "tolerance: expected pixels"),
        (["--quality", "0"], "quality: expected"),
        (["--glob", "*.gif"], "the pattern of --glob matches none"),
        (["--overlay-video"], "--overlay-video: expected a video"),
        (["--address", "auto"], "--address: it is for --engine ray"),
    ],
)
def test_flags_that_cannot_be_used(
    batch: Any, photos: Path, tmp_path: Path, flags: list[str], words: str, tree: Any
) -> None:
    before = tree(tmp_path)
    ended = batch(photos, *flags)
    assert ended.code == 2
    assert words in ended.err
    assert len(ended.err.splitlines()) == 1
    assert tree(tmp_path) == before


def test_places_that_cannot_be_used(batch: Any, photos: Path, tmp_path: Path, make_image: Draw) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("a file")
    for images, out, words in (
        (tmp_path / "nothing", None, "got nothing there"),
        (tmp_path / "empty", None, "expected images in"),
        (photos, photos, "expected another folder for results"),
        (photos, tmp_path / "file", "expected a folder that can be written"),
        (photos / "p000.png", None, "use `cliper segment`"),
    ):
        ended = batch(images, out=out)
        assert ended.code == 2, words
        (line,) = ended.err.splitlines()
        assert words in line
    assert not (tmp_path / "out").exists()


def test_a_tar_that_is_cut_off_ends_the_run_but_keeps_what_was_done(
    batch: Any, tmp_path: Path, make_image: Draw
) -> None:
    photos = make_photos(tmp_path / "photos", make_image, 9)
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(photos, "photos")
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        cut = [member.offset for member in tar.getmembers() if member.isreg()][6] + 100
    path.write_bytes(whole[:cut])
    ended = batch(path)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert "expected a whole tar, got a damaged one" in line
    assert "something else after image 6: " in line
    assert line.endswith("fetch or make it again; finished images are kept; the same command with --resume continues")
    assert len(records(tmp_path / "out")) == 6
    path.write_bytes(whole)
    ended = batch(path, "--resume")
    assert (ended.code, ended.err) == (0, "")
    assert "9 images: 9 done, 6 of them earlier" in ended.out
