"""Every extra of pyproject.toml does its work, also where it is the only one installed (``make test-extra``)."""

from __future__ import annotations

import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import cliper
from dataset_trees.sources import build_sources

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = set(PROJECT["optional-dependencies"]) - {"test", "docs", "dev"}


def run(*arguments: object) -> None:
    """Run ``cliper`` in a process of its own; it has to succeed."""
    command = [sys.executable, "-m", "cliper", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def start_and_stop(*arguments: object) -> None:
    """Run a server until it prints its address, then interrupt it; it has to end without an error."""
    command = [sys.executable, "-m", "cliper", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "http://127.0.0.1:" in line, errors
    assert process.returncode == 0, errors


def check_coco(model: Path, photo: Path, folder: Path) -> None:
    build_sources("coco-object", folder)
    run("data", "prepare", "coco-object", folder)


def check_export(model: Path, photo: Path, folder: Path) -> None:
    example = Path(__file__).parents[1] / "examples" / "onnx_segment.py"
    run("export", "onnx", folder / "onnx", "-m", model)
    command = [sys.executable, example, folder / "onnx", photo, "dog; cat", folder / "labels.png"]
    subprocess.run(list(map(str, command)), check=True, timeout=300)
    assert (folder / "labels.png").is_file()
    run("export", "openvino", folder / "openvino", "-m", model)
    assert (folder / "openvino" / "image.xml").is_file()


def check_geo(model: Path, photo: Path, folder: Path) -> None:
    import rasterio

    with rasterio.open(folder / "in.tif", "w", driver="GTiff", width=90, height=70, count=3, dtype="uint8") as out:
        out.write(rasterio.open(photo).read()[:, :70, :90], window=((0, 64), (0, 90)))
    for name in ("out.tif", "out.gpkg"):
        run("segment", folder / "in.tif", "-c", "dog", "-m", model, "--tile", 48, "-o", folder / name)
        assert (folder / name).is_file()


def check_heif(model: Path, photo: Path, folder: Path) -> None:
    import pillow_heif
    from PIL import Image

    pillow_heif.from_pillow(Image.open(photo)).save(folder / "photo.heic")
    run("segment", folder / "photo.heic", "-c", "dog", "-m", model, "-o", folder / "out.png")
    assert (folder / "out.png").is_file()


def check_s3(model: Path, photo: Path, folder: Path) -> None:
    import fsspec

    system, path = fsspec.core.url_to_fs("s3://bucket/photos")
    assert (type(system).__name__, path) == ("S3FileSystem", "bucket/photos")


def check_scale(model: Path, photo: Path, folder: Path) -> None:
    run("batch", photo.parent, "-c", "dog", "-m", model, "-o", folder / "out", "--engine", "ray", "--workers", 1)
    assert len(list((folder / "out").glob("*.labels.png"))) == 1


def check_server(model: Path, photo: Path, folder: Path) -> None:
    start_and_stop("serve", "--model", model)


def check_supervision(model: Path, photo: Path, folder: Path) -> None:
    result = cliper.Segmenter.from_pretrained(model, device="cpu")(photo, ["dog", "cat"])
    assert result.to_supervision().mask.shape[1:] == result.labels.shape


def check_video(model: Path, photo: Path, folder: Path) -> None:
    import av

    with av.open(folder / "film.mp4", "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height = 64, 48
        for _ in range(3):
            frame = av.VideoFrame(64, 48, "yuv420p")
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    run("batch", folder / "film.mp4", "-c", "dog", "-m", model, "-o", folder / "out")
    assert len(list((folder / "out").glob("*.labels.png"))) == 3


LARGE = {"export": "openvino", "geo": "rasterio"}  # not in the developer's environment; a package of each

CHECKS: dict[str, Callable[[Path, Path, Path], None]] = {
    "coco": check_coco,
    "export": check_export,
    "geo": check_geo,
    "heif": check_heif,
    "s3": check_s3,
    "scale": check_scale,
    "server": check_server,
    "supervision": check_supervision,
    "video": check_video,
}


@pytest.mark.full
@pytest.mark.parametrize("extra", CHECKS)
def test_extra_does_its_work(
    extra: str, clip_folder: Path, photo: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if extra in LARGE:
        pytest.importorskip(LARGE[extra], reason=f"the extra is large; make .venv-{extra} installs it")
    CHECKS[extra](clip_folder, photo, tmp_path_factory.mktemp(extra))


def test_every_extra_has_a_check() -> None:
    assert set(CHECKS) == EXTRAS
