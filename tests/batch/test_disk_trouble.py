"""A disk that fills up, and a folder that becomes read-only: one line, nothing half-written, and the run goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

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


@pytest.fixture
def many(tmp_path: Path, make_image: Draw) -> Path:
    return make_photos(tmp_path / "photos", make_image, 60)


def test_a_full_disk(many: Path, clip_folder: Path, tmp_path: Path, small_disk: Path) -> None:
    out = small_disk / "out"
    arguments = ["batch", many, "-c", CLASSES, "-m", clip_folder, "--threads", "2", "-o"]
    code, _, errors = ended(start(*arguments, out))
    assert code == 2
    (line,) = said(errors)
    assert line.startswith("cliper: error: cannot write ")
    assert "disk is full" in line or "No space left" in line
    assert line.endswith("the same command with --resume continues")
    done = len(records(out))
    assert 0 < done < 60
    # The manifest's own last line may be what did not fit, after its image's files did.
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert not [name for name in files if Path(name).name.startswith(".")]
    mount("-o", "remount,size=100m", small_disk)
    code, printed, errors = ended(start(*arguments, out, "--resume"))
    assert (code, said(errors)) == (0, [])
    assert f"60 images: 60 done, {done} of them earlier" in printed
    assert ended(start(*arguments, tmp_path / "undisturbed"))[0] == 0
    assert content(out) == content(tmp_path / "undisturbed")


def test_a_folder_that_becomes_read_only(many: Path, clip_folder: Path, small_disk: Path) -> None:
    # Permissions do not stop root, who runs many a test; a disk that is read-only stops everybody.
    mount("-o", "remount,size=100m", small_disk)
    out = small_disk / "out"
    arguments = ["batch", many, "-c", CLASSES, "-m", clip_folder, "--threads", "2", "-o", out]
    process = start(*arguments)
    wait_for_lines(out, 5, process)
    # The disk itself is busy while the manifest is open for writing; a read-only view of it laid over the folder
    # is not.
    view = small_disk / "view"
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
    # What was being written cannot be taken away again, but has no name that anybody would take for a result.
    for path in out.rglob("*.png"):
        if not path.name.startswith("."):
            with Image.open(path) as image:
                image.load()
    assert 5 <= len(records(out)) < 60
    assert ended(start(*arguments, "--resume"))[0] == 0
    assert all((out / name).is_file() for line in records(out) for name in line["outputs"])
