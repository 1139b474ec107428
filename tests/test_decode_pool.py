"""Decoding in limited processes: what comes back, and what becomes of a decoder that misbehaves."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cliper.decode_pool import DecodePool
from cliper.errors import ImageError

Draw = Callable[..., Image.Image]

HOSTILE = "hostile_decoders:decoder"


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(2) as pool:
        yield pool


@pytest.fixture(scope="module")
def hostile() -> Iterator[DecodePool]:
    """With limits that a test can wait for."""
    with DecodePool(1, memory_limit=2**30, cpu_seconds=1, wall_seconds=60, handler=HOSTILE) as pool:
        yield pool


@pytest.mark.full
def test_pixels_are_those_of_decoding_here(pool: DecodePool, tmp_path: Path, make_image: Draw) -> None:
    for size in ((96, 64), (1, 1), (3000, 2500)):  # the last is more than the shared memory keeps
        image = make_image(*size)
        image.save(tmp_path / "a.png")
        for source in (tmp_path / "a.png", (tmp_path / "a.png").read_bytes()):
            pixels = pool.decode(source, "a.png")
            assert np.array_equal(pixels, np.asarray(image))
            assert pixels.flags.writeable


def test_images_are_upright(pool: DecodePool) -> None:
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 2), "red").save(stream, "JPEG", exif=exif)
    assert pool.decode(stream.getvalue(), "a.jpg").shape == (4, 2, 3)


def test_errors_are_those_of_decoding_here(pool: DecodePool, tmp_path: Path) -> None:
    name = tmp_path / "no\udcff.png"
    with pytest.raises(ImageError, match=r"expected .* at '.*no\\udcff.png', got nothing there"):
        pool.decode(name)
    with pytest.raises(ImageError, match=r"got something else: 'upload.png'; convert it"):
        pool.decode(b"no image", "upload.png")


def test_many_threads_each_get_their_own_image(pool: DecodePool) -> None:
    files = []
    for grey in range(40):
        stream = io.BytesIO()
        Image.new("RGB", (grey + 1, 5), (grey,) * 3).save(stream, "PNG")
        files.append(stream.getvalue())
    futures = [pool.submit(data, str(grey)) for grey, data in enumerate(files)]
    for grey, future in enumerate(futures):
        pixels = future.result(timeout=60)
        assert pixels.shape == (5, grey + 1, 3)
        assert (pixels == grey).all()


@pytest.mark.full
def test_processes_import_no_network(hostile: DecodePool) -> None:
    with pytest.raises(ImageError) as caught:
        hostile.decode(b"", "modules")
    modules = {name.partition(".")[0] for name in str(caught.value).split()}
    assert "cliper" in modules
    assert not modules & {"torch", "transformers", "diffusers", "scipy", "click"}
    code = "import sys, cliper.decode_pool, cliper.images; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "diffusers", "scipy"} & set(loaded)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("allocate", "out of memory"),
        ("abort", "'abort': it crashes its decoder (SIGABRT)"),
        ("crash", "'crash': it crashes its decoder (SIGSEGV)"),
        ("exit", "'exit': it crashes its decoder (exit code 3)"),
        ("kill", "'kill': its decoder was killed, out of memory perhaps"),
        ("lie", "'lie': its decoder gave no image"),
        ("spin", "'spin': it takes more than 1 s of processor time"),
    ],
)
def test_a_decoder_that_misbehaves_is_one_error(hostile: DecodePool, name: str, words: str) -> None:
    with pytest.raises(ImageError) as caught:
        hostile.decode(b"", name)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ImageError, match="something else"):  # by another process
        hostile.decode(b"no image", "next")


def test_a_decoder_that_hangs_is_one_error() -> None:
    with DecodePool(1, wall_seconds=2, handler=HOSTILE) as pool:
        with pytest.raises(ImageError, match="'hang': it takes longer than 2 s"):
            pool.decode(b"", "hang")
        assert not is_running(pool._processes[0]._process.pid)


@pytest.mark.full
def test_the_limit_of_processor_time_is_for_each_image() -> None:
    """Each of these takes less than a second, all of them more than the limit."""
    with DecodePool(1, cpu_seconds=1, wall_seconds=60, handler="test_decode_pool:busy_decoder") as pool:
        for _ in range(4):
            assert pool.decode(b"", "busy").shape == (1, 1, 3)


def busy_decoder() -> object:
    def decode(request: object, data: bytes) -> object:
        until = time.process_time() + 0.7
        while time.process_time() < until:
            pass
        return {}, np.zeros((1, 1, 3), np.uint8)

    return decode


def test_closing_ends_what_is_being_decoded() -> None:
    pool = DecodePool(1, handler=HOSTILE)
    future = pool.submit(b"", "hang")
    process = pool._processes[0]._process
    time.sleep(0.5)
    started = time.monotonic()
    pool.close()
    assert isinstance(future.exception(timeout=20), ImageError)
    assert time.monotonic() - started < 10
    assert process.poll() is not None
    with pytest.raises(RuntimeError):
        pool.decode(b"", "good")


@pytest.mark.full
def test_no_process_or_file_is_left() -> None:
    before = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    for _ in range(3):
        with DecodePool(2) as pool, pytest.raises(ImageError):
            pool.decode(b"")
    assert (len(list(Path("/proc/self/fd").iterdir())), threading.active_count()) == before


@pytest.mark.full
def test_processes_end_with_a_parent_that_was_killed() -> None:
    code = """
import os, signal
from cliper.decode_pool import DecodePool
pool = DecodePool(2)
print(*[process._process.pid for process in pool._processes], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    children = [int(pid) for pid in ended.stdout.split()]
    assert len(children) == 2
    until = time.monotonic() + 30
    while any(is_running(pid) for pid in children):
        assert time.monotonic() < until
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
