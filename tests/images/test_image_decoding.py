"""Files that are not images, damaged or too large are refused in one line, the latter before they are decoded."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_helpers import photo, refusal
from PIL import Image

import hostile_images as hostile
from cliper.images import load_image


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """An 8-bit grey PNG with any size in its header."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


# --- files that are not images -----------------------------------------------------------------------------


def test_missing_folder_and_impossible_names(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    assert "no.png" in (message := refusal(tmp_path / "no.png"))
    assert "nothing there" in message
    assert "nothing there" in refusal(tmp_path / "file" / "below.png")
    assert "folder" in refusal(tmp_path)
    assert "check the path" in refusal("a\0b.png")
    assert len(refusal("x" * 10_000)) < 600
    assert refusal("two\nlines.png")


def test_empty_text_and_garbage(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    for content, words in [(b"", "0 bytes"), (b"just some words\n" * 9, "convert it"), (b"\x89PNG", "got")]:
        path.write_bytes(content)
        assert words in (message := refusal(path))
        assert "a.png" in message


def test_format_is_known_by_content_not_name(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.txt", format="PNG")
    np.testing.assert_array_equal(np.asarray(load_image(tmp_path / "a.txt")), np.asarray(photo()))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_named_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "pipe" in refusal(tmp_path / "pipe.png")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo().save(tmp_path / "a.png")

    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert "permission" in refusal(tmp_path / "a.png")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("GIF", {}), ("WEBP", {}), ("BMP", {})],
)
def test_truncated(tmp_path: Path, kind: str, options: dict[str, Any], share: float) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    photo(160, 120).save(whole, format=kind, **options)
    data = whole.read_bytes()
    assert load_image(whole).size == (160, 120)
    cut.write_bytes(data[: int(len(data) * share)])
    assert "truncated" in (message := refusal(cut))
    assert "cut" in message


def test_jpeg_without_components(tmp_path: Path) -> None:
    frame, scan = struct.pack(">BHHB", 8, 8, 8, 0), b"\1\1\0\0\0\0"
    data = b"\xff\xd8" + hostile.segment(0xC0, frame) + hostile.segment(0xDA, scan) + b"\xff\xd9"
    (tmp_path / "a.jpg").write_bytes(data)
    (tmp_path / "a.tif").write_bytes(hostile.tiff(data=data, t259=(3, 1, 7), t279=(4, 1, len(data))))
    assert "got something else" in refusal(tmp_path / "a.jpg")
    assert "damaged" in (message := refusal(tmp_path / "a.tif"))
    assert "max()" not in message


# --- size ------------------------------------------------------------------------------------------------


def test_decompression_bomb_is_refused_from_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, limit = tmp_path / "bomb.png", Image.MAX_IMAGE_PIXELS
    path.write_bytes(png(20_000, 10_000))
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("a bomb was decoded"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = refusal(path)
    assert "200 megapixels" in message
    assert "at most 128 megapixels" in message
    assert "20000x10000" in message
    assert "smaller" in message
    assert limit == Image.MAX_IMAGE_PIXELS


def test_decompression_bomb_that_pillow_refuses(tmp_path: Path) -> None:
    # A GIF frame larger than the canvas: Pillow checks it before the size is known.
    frame = b"," + struct.pack("<HHHHB", 0, 0, 20_000, 20_000, 0)
    (tmp_path / "a.gif").write_bytes(b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + frame + b"\x02\x00;")
    assert "megapixels" in refusal(tmp_path / "a.gif")


def test_message_about_a_limit_of_pillow_has_the_number_of_pixels(tmp_path: Path) -> None:
    side = {"t256": (hostile.LONG, 1, 20_000), "t257": (hostile.LONG, 1, 20_000), "t278": (hostile.LONG, 1, 20_000)}
    (tmp_path / "a.tif").write_bytes(hostile.tiff(**side))
    message = refusal(tmp_path / "a.tif", max_pixels=500_000_000)
    assert "at most 179 megapixels" in message
    assert "400 megapixels" in message


def test_no_warning_below_the_limit(tmp_path: Path) -> None:
    # 95 megapixels: Image.open would warn.
    (tmp_path / "a.png").write_bytes(png(9500, 10_000, b"\0" * 100))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "truncated" in refusal(tmp_path / "a.png")


def test_pixel_limit_holds_for_every_source(tmp_path: Path) -> None:
    image = photo()
    image.save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", image, np.asarray(image)):
        assert "64x48" in refusal(source, max_pixels=64 * 48 - 1)
        assert load_image(source, max_pixels=64 * 48).size == (64, 48)


def test_one_pixel_and_very_long_images(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), "red").save(tmp_path / "one.png")
    Image.new("RGB", (30_000, 2), "red").save(tmp_path / "strip.png")
    assert np.asarray(load_image(tmp_path / "one.png")).tolist() == [[[255, 0, 0]]]
    assert load_image(tmp_path / "strip.png").size == (30_000, 2)


def test_thread_safety(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.png")
    (tmp_path / "bomb.png").write_bytes(png(20_000, 10_000))

    def one(index: int) -> bool:
        if index % 2:
            return "megapixels" in refusal(tmp_path / "bomb.png")
        return load_image(tmp_path / "a.png").size == (64, 48)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(64)))
