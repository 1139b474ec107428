"""Input and output in a real S3 protocol server: folder, list, tar, kill and resume."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from batch_runs import CLASSES, by_input, content, ended, make_photos, start
from PIL import Image

pytestmark = [pytest.mark.full, pytest.mark.enable_socket]

Draw = Callable[..., Image.Image]

FLAGS = ("-f", "labels", "-f", "coco", "--threads", "2")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The server, with its address and credentials in the environment."""
    own = Path(__file__).parents[2] / ".venv-moto" / "bin"
    program = shutil.which("moto_server", path=f"{own}{os.pathsep}{os.environ['PATH']}")
    pytest.importorskip("s3fs")
    if program is None:
        pytest.skip("needs moto[server]; make .venv-moto")
    log = tmp_path_factory.mktemp("s3") / "log"
    with log.open("w") as stream:
        process = subprocess.Popen([program, "-p", "0"], stdout=stream, stderr=stream)
    until = time.monotonic() + 120
    while "Running on http://" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until
        time.sleep(0.1)
    uri = "http://" + log.read_text().partition("Running on http://")[2].split()[0]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": uri,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        yield
    process.terminate()
    process.wait()


@pytest.fixture
def bucket(server: None) -> Iterator[Any]:
    import s3fs

    system = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    system.mkdir("bucket")
    yield system
    system.rm("bucket", recursive=True)


def downloaded(bucket: Any, folder: Path) -> dict[str, object]:
    bucket.get("bucket/out", str(folder), recursive=True)
    found = content(folder)
    del found["run.json"]  # it has the input's address
    return found


def test_killed_and_resumed_in_a_bucket(bucket: Any, clip_folder: Path, tmp_path: Path, make_image: Draw) -> None:
    photos = make_photos(tmp_path / "photos", make_image, 40)
    bucket.put(str(photos), "bucket/photos", recursive=True)
    arguments = ["-c", CLASSES, "-m", clip_folder, *FLAGS]
    assert ended(start(photos, *arguments, "-o", tmp_path / "near"))[0] == 0
    process = start("s3://bucket/photos", *arguments, "-o", "s3://bucket/out")
    until = time.monotonic() + 240
    while len(bucket.find("bucket/out")) < 10:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    ended(process)
    code, printed, errors = ended(start("s3://bucket/photos", *arguments, "-o", "s3://bucket/out", "--resume"))
    assert (code, errors) == (0, "")
    assert "wrote s3://bucket/out/coco.json" in printed
    near = content(tmp_path / "near")
    del near["run.json"]
    assert downloaded(bucket, tmp_path / "far") == near


def test_a_list_and_a_tar_in_a_bucket(bucket: Any, clip_folder: Path, tmp_path: Path, make_image: Draw) -> None:
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
        code, _, errors = ended(start(f"s3://bucket/{source}", "-c", "dog", "-m", clip_folder, *FLAGS, "-o", out))
        assert (code, errors) == (0, ""), source
        assert sorted(by_input(out)) == names


def test_a_bucket_that_does_not_exist(bucket: Any, clip_folder: Path, tmp_path: Path, make_image: Draw) -> None:
    photos = make_photos(tmp_path / "photos", make_image, 2)
    code, _, errors = ended(start(photos, "-c", "dog", "-m", clip_folder, "-o", "s3://nothing/out"))
    assert (code, errors.count("\n")) == (2, 1)
    assert "cannot write 's3://nothing/out/run.json'" in errors
    assert not bucket.exists("nothing")
    code, _, errors = ended(start("s3://nothing/photos", "-c", "dog", "-m", clip_folder, "-o", tmp_path / "out"))
    assert (code, errors.count("\n")) == (2, 1)
