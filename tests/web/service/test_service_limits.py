"""How much a request may ask for: what is more is refused in one line, and nothing was computed for it."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pytest
from PIL import Image
from service_runs import refused

from cliper.errors import InputError
from cliper.web.service.limits import Limits
from hostile_images import gif_comment

pytestmark = pytest.mark.usefixtures("no_model")


def header_of(width: int, height: int) -> bytes:
    """A PNG that says to be so large, with a few bytes of zeros that grow to many."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10**7), 9))
        + chunk(b"IEND", b"")
    )


def test_a_body_too_large_by_its_header(start: Any) -> None:
    service = start(megabytes=0.1)
    refused(service.segment(bytes(100_000)), 413, "at most 0.1 MB")
    refused(service.client.post("/predict", json={"tasks": ["x" * 100_000]}), 413)


def test_a_bomb_is_known_by_its_header(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import PngImagePlugin

    service = start(megapixels=1)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda *_: pytest.fail("it was decoded"))
    refused(service.segment(header_of(50_000, 50_000)), 422, "megapixels", "50000x50000")
    refused(service.segment(header_of(1001, 1000)), 422, "megapixels")


def test_pictures_that_are_none(usual: Any, picture_file: bytes) -> None:
    refused(usual.segment(b""), 422, "0 bytes")
    refused(usual.segment(b"hello"), 422, "expected an image")
    refused(usual.segment(picture_file[: len(picture_file) // 2]), 422, "truncated")


def test_hostile_image_is_refused(usual: Any) -> None:
    refused(usual.segment(gif_comment(0.2)), 422, "GIF blocks before its pixels")


def test_many_classes(start: Any, picture_file: bytes) -> None:
    service = start(classes=20)
    names = [f"t{number}" for number in range(10_000)]
    for classes in (names, "; ".join(names), names[:21], "; ".join(names[:21])):
        refused(service.segment(picture_file, classes), 422, "at most 20 class entries")
        refused(service.segment(picture_file, ["cat"], background=classes), 422, "at most 20 background name entries")
    refused(service.segment(picture_file, ["cat: " + ", ".join(names)] * 2), 422, "characters in all")


def test_many_texts(start: Any, picture_file: bytes) -> None:
    service = start(texts=50)
    refused(service.segment(picture_file, ["cat"], settings={"templates": "imagenet80"}), 422, "at most 50 texts")
    refused(service.segment(picture_file, "cat: " + ", ".join(f"c{n}" for n in range(60)), background=[]), 422, "texts")
    refused(service.segment(picture_file, "x" * 501), 422, "500 characters")


def test_many_classes_of_many_pixels(start: Any, picture_file: bytes) -> None:
    service = start(labelling=0.01)  # of 96 x 64 pixels 1.6 classes
    served = service.service.served
    served.check_work((96, 64), served.settings, classes=1, refined=False)
    refused(service.segment(picture_file, "cat; dog"), 422, "megapixels times classes", "0.006144 times 2")


def test_work_that_would_take_long(start: Any, picture_file: bytes) -> None:
    service = start(patches=100)
    refused(service.segment(picture_file, settings={"size": 4096}), 422, "at most 100 patches", "98304")
    strip = io.BytesIO()
    Image.new("RGB", (2000, 2)).save(strip, "PNG")
    refused(service.segment(strip.getvalue()), 422, "patches")
    # 96 x 64 pixels at size 128 are 96 patches; the windows make it more.
    refused(service.segment(picture_file, settings={"size": 128, "window": 112}), 422, "window 112 make")
    refused(service.segment(picture_file, settings={"size": 128, "window": 16}), 422, "at least 112")


def test_limits_have_bounds() -> None:
    for name in Limits.__dataclass_fields__:
        for value in (0, -1, 1e12, float("nan")):
            with pytest.raises(InputError, match=name):
                Limits(**{name: value})
