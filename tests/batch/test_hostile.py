"""Hostile files cannot end a run: each becomes one failed image with its reason."""

from __future__ import annotations

import functools
import io
import resource
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from cliper.batch.task import SegmentTask
from cliper.decode_pool import DecodePool
from hostile_decoders import MISBEHAVIOURS
from hostile_images import FILES
from runs import CLASSES, Draw, by_input, ended, make_photos, start


@pytest.mark.full
def test_decoders_that_no_check_foresaw(
    batch: Any, tmp_path: Path, make_image: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_photos(tmp_path / "photos", make_image, 8)
    for name in MISBEHAVIOURS:
        make_image().save(folder / f"{name}.png")
    limits = {"memory_limit": 2**30, "cpu_seconds": 2, "wall_seconds": 15}
    monkeypatch.setattr("cliper.runner.engines.threads.DecodePool", functools.partial(DecodePool, **limits))
    monkeypatch.setattr(SegmentTask, "decoder", "hostile_decoders:decoder")
    result = batch(folder, "-f", "labels")
    assert result.code == 1
    lines = by_input(tmp_path / "out")
    failed = {name: line["error"] for name, line in lines.items() if line["status"] == "failed"}
    assert sorted(failed) == sorted(f"{name}.png" for name in MISBEHAVIOURS)
    assert len(lines) == 8 + len(MISBEHAVIOURS)
    assert "SIGSEGV" in failed["crash.png"]
    assert "longer than 15 s" in failed["hang.png"]
    result = batch(folder, "-f", "labels", "--resume")  # they stay failed
    assert f"{len(lines)} images: 8 done, 8 of them earlier, {len(MISBEHAVIOURS)} failed" in result.out


@pytest.mark.full
@pytest.mark.parametrize("kind", ["folder", "tar", pytest.param("s3", marks=pytest.mark.enable_socket)])
def test_every_hostile_file_under_a_memory_limit(
    clip_folder: Path, tmp_path: Path, make_image: Draw, request: pytest.FixtureRequest, kind: str
) -> None:
    """40 good images are done and the others named, in under 3 minutes, with 4 GiB of address space per process."""
    source: object = make_photos(tmp_path / "photos", make_image, 40)
    for name, make in FILES.items():
        (tmp_path / "photos" / f"hostile-{name}").write_bytes(make())
    if kind == "tar":
        with tarfile.open(tmp_path / "photos.tar", "w") as tar:
            tar.add(tmp_path / "photos", ".")
        source = tmp_path / "photos.tar"
    if kind == "s3":
        request.getfixturevalue("bucket").put(str(source), "bucket/photos", recursive=True)
        source = "s3://bucket/photos"
    arguments = [
        "batch",
        source,
        "-c",
        CLASSES,
        "-m",
        clip_folder,
        "-f",
        "labels",
        "-o",
        tmp_path / "out",
        "--threads",
        2,
    ]
    arguments += ["--glob", "*.*"]
    began = time.monotonic()
    resource_limit = functools.partial(resource.setrlimit, resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
    code, printed, errors = ended(start(*arguments, preexec_fn=resource_limit))
    assert time.monotonic() - began < 180
    assert code == 1, errors
    lines = by_input(tmp_path / "out")
    good = [name for name, line in lines.items() if line["status"] == "done" and "hostile-" not in name]
    assert len(good) == 40
    assert len(lines) == 40 + len(FILES)
    for name, line in lines.items():
        if line["status"] == "failed":
            assert f"cliper: error: {name}: {line['error']}" in errors
    assert "Traceback" not in errors
    assert f"{len(lines)} images: " in printed


def test_a_member_of_six_gigabytes_is_never_read(batch: Any, tmp_path: Path, make_image: Draw) -> None:
    data = io.BytesIO()
    make_image().save(data, "PNG")
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as tar:
        small = tarfile.TarInfo("small.png")
        small.size = len(data.getvalue())
        tar.addfile(small, io.BytesIO(data.getvalue()))
    large = tarfile.TarInfo("large.png")
    large.size = 6 * 10**9
    with path.open("r+b") as stream:
        stream.seek(512 + -(-small.size // 512) * 512)
        stream.write(large.tobuf())
        stream.truncate(stream.tell() + large.size + 1024)  # zeros that take no room on the disk
    result = batch(path, "-f", "labels")
    assert result.code == 1
    error = by_input(tmp_path / "out")["large.png"]["error"]
    assert error.startswith("expected a file of at most 512 MiB, got 5722 MiB: ")
    assert by_input(tmp_path / "out")["small.png"]["status"] == "done"
