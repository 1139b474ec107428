"""Folders of small images, the command, and a server that speaks S3."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runs import CLASSES, Draw, make_photos


@pytest.fixture
def photos(tmp_path: Path, make_image: Draw) -> Path:
    """Twelve images of three sizes in three folders."""
    return make_photos(tmp_path / "photos", make_image)


@pytest.fixture
def batch(command: Any, clip_folder: Path, tmp_path: Path) -> Callable[..., Any]:
    """Run it with the tiny CLIP into ``out``, or where ``out`` says."""

    def call(images: object, *flags: object, out: object = None, classes: str = CLASSES) -> Any:
        return command(
            "batch", images, "-c", classes, "-m", clip_folder, "-o", out or tmp_path / "out", "--threads", 2, *flags
        )

    return call


@pytest.fixture
def store() -> Iterator[Any]:
    """fsspec's object store in memory; empty."""
    system = pytest.importorskip("fsspec").filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
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
        patch.setenv("AWS_ENDPOINT_URL", uri)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield
    process.terminate()
    process.wait()


@pytest.fixture
def bucket(s3_server: None) -> Iterator[Any]:
    """The file system, with an empty bucket named ``bucket``."""
    import s3fs

    system = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    system.mkdir("bucket")
    yield system
    system.rm("bucket", recursive=True)
