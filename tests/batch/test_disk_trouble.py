"""A disk that fills up, and a folder that becomes read-only: one line, nothing half-written, and the run goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from dataset_trees.own import own_arguments, own_data, report_of
from runs import CLASSES, Draw, content, ended, make_photos, records, said, start, wait_for_lines

pytestmark = pytest.mark.full  # processes of their own, which load what they need each time


def mount(*arguments: object) -> None:
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs the right to mount a small disk: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not Path("/proc/mounts").exists():
        pytest.skip("needs Linux")
    mount("-t", "tmpfs", "-o", "size=400k", "tmpfs", folder)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize(("name", "size"), [("batch", "400k"), ("evaluate", "12k")])
def test_a_full_disk(
    name: str, size: str, clip_folder: Path, tmp_path: Path, small_disk: Path, make_image: Draw
) -> None:
    own_data(tmp_path, 60, make_image)
    batch = ("batch", make_photos(tmp_path / "photos", make_image, 60), "-c", CLASSES, "-m", clip_folder)
    arguments = batch if name == "batch" else own_arguments(tmp_path, clip_folder)
    mount("-o", f"remount,size={size}", small_disk)
    out = small_disk / "out"
    code, _, errors = ended(start(*arguments, "--threads", "2", "-o", out))
    assert code == 2
    (line,) = said(errors)
    assert line.startswith("cliper: error: cannot write ")
    assert line.endswith("the same command with --resume continues")
    assert "disk is full" in line or "No space left" in line
    assert 0 < (done := len(records(out))) < 60
    # The manifest's own last line may be what did not fit, after its image's files did.
    assert not [path for path in out.rglob(".*") if path.is_file()]
    mount("-o", "remount,size=100m", small_disk)
    code, printed, errors = ended(start(*arguments, "-o", out, "--resume"))
    assert (code, said(errors)) == (0, [])
    assert name == "evaluate" or f"60 images: 60 done, {done} of them earlier" in printed
    assert name == "batch" or report_of(out)["this_run"]["images"] == 60 - done
    assert ended(start(*arguments, "-o", tmp_path / "undisturbed"))[0] == 0
    results = content if name == "batch" else lambda folder: report_of(folder)["matrix"]
    assert results(out) == results(tmp_path / "undisturbed")


def test_a_folder_that_becomes_read_only(clip_folder: Path, small_disk: Path, make_image: Draw) -> None:
    # Permissions do not stop root.
    mount("-o", "remount,size=100m", small_disk)
    out = small_disk / "out"
    many = make_photos(small_disk / "photos", make_image, 60)
    arguments = ["batch", many, "-c", CLASSES, "-m", clip_folder, "--threads", "2", "-o", out]
    process = start(*arguments)
    wait_for_lines(out, 5, process)
    view = small_disk / "view"  # the disk itself is busy while the manifest is open
    view.mkdir()
    mount("--bind", out, view)
    mount("-o", "remount,bind,ro", view)
    mount("--bind", view, out)
    try:
        code, _, errors = ended(process)
        assert code == 2
        assert len([line for line in said(errors) if "read-only" in line]) == len(said(errors)) == 1
        assert errors.rstrip().endswith("the same command with --resume continues")
        again = ended(start(*arguments, "--resume"))
        assert again[0] == 2
        assert "expected a folder that can be written" in again[2]
    finally:
        for folder in (out, view):
            subprocess.run(["umount", "-l", folder], check=True)
    for path in out.rglob("[!.]*.png"):  # no result is half a file
        with Image.open(path) as image:
            image.load()
    assert 5 <= len(records(out)) < 60
    assert ended(start(*arguments, "--resume"))[0] == 0
    assert all((out / name).is_file() for line in records(out) for name in line["outputs"])
