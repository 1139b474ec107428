"""Input and output in a real S3 protocol server: folder, list, tar, kill and resume."""

from __future__ import annotations

import signal
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from runs import CLASSES, Draw, by_input, content, ended, make_photos, start

pytestmark = [pytest.mark.full, pytest.mark.enable_socket]

FLAGS = ("-f", "labels", "-f", "coco", "--threads", "2")


def test_killed_and_resumed_in_a_bucket(bucket: Any, clip_folder: Path, tmp_path: Path, make_image: Draw) -> None:
    photos = make_photos(tmp_path / "photos", make_image, 40)
    bucket.put(str(photos), "bucket/photos", recursive=True)
    arguments = ["-c", CLASSES, "-m", clip_folder, *FLAGS, "-o"]
    assert ended(start("batch", photos, *arguments, tmp_path / "near"))[0] == 0
    process = start("batch", "s3://bucket/photos", *arguments, "s3://bucket/out")
    until = time.monotonic() + 240
    while len(bucket.find("bucket/out")) < 10:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    ended(process)
    # As if it had been killed while it uploaded in parts; those of others are left alone.
    for key in ("out/coco.json", "out/garden/far/p038.labels.png", "out/mine.bin", "outside/coco.json"):
        bucket.call_s3("create_multipart_upload", Bucket="bucket", Key=key)
    resumed = ended(start("batch", "s3://bucket/photos", *arguments, "s3://bucket/out", "--resume"))
    assert (resumed[0], resumed[2]) == (0, "")
    assert "wrote s3://bucket/out/coco.json" in resumed[1]
    left = sorted(upload["Key"] for upload in bucket.list_multipart_uploads("bucket"))
    assert left == ["out/mine.bin", "outside/coco.json"]
    bucket.get("bucket/out", str(tmp_path / "far"), recursive=True)
    far, near = content(tmp_path / "far"), content(tmp_path / "near")
    del far["run.json"], near["run.json"]  # they have the input's address
    assert far == near


def test_list_and_tar_in_a_bucket(bucket: Any, clip_folder: Path, tmp_path: Path, make_image: Draw) -> None:
    photos = make_photos(tmp_path / "photos", make_image, 6)
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("p*.*"))
    bucket.put(str(photos), "bucket/photos", recursive=True)
    (tmp_path / "list.txt").write_text("".join(f"s3://bucket/photos/{name}\n" for name in names))
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name in names:
            tar.add(photos / name, name)
    for source in ("list.txt", "t.tar"):
        bucket.put(str(tmp_path / source), f"bucket/{source}")
        out = tmp_path / f"out-{source}"
        arguments = (f"s3://bucket/{source}", "-c", "dog", "-m", clip_folder, *FLAGS, "-o", out)
        code, _, errors = ended(start("batch", *arguments))
        assert (code, errors, sorted(by_input(out))) == (0, "", names), source


def test_bucket_that_does_not_exist(bucket: Any, clip_folder: Path, tmp_path: Path, make_image: Draw) -> None:
    photos = make_photos(tmp_path / "photos", make_image, 2)
    arguments = ["-c", "dog", "-m", clip_folder, "-o"]
    code, _, errors = ended(start("batch", photos, *arguments, "s3://nothing/out"))
    assert (code, errors.count("\n")) == (2, 1)
    assert "cannot write 's3://nothing/out/run.json'" in errors
    assert not bucket.exists("nothing")
    code, _, errors = ended(start("batch", "s3://nothing/photos", *arguments, tmp_path / "out"))
    assert (code, errors.count("\n")) == (2, 1)
