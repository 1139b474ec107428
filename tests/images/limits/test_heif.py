"""HEIC images: read with pillow-heif, their structure checked before; without the package the error names it."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cliper.decode_pool import DecodePool
from cliper.errors import ImageError
from cliper.images import load_image
from cliper.images.limits import LimitExceededError, check_limits
from cliper.images.limits.heif import coded_size

NOISE = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
HEIC = struct.pack(">L4s4sL4s4s", 24, b"ftyp", b"heic", 0, b"mif1", b"heic")


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">L4s", 8 + len(content), kind) + content


def full(kind: bytes, content: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, struct.pack(">L", version << 24 | flags) + content)


def parameters(width: int, height: int) -> bytes:
    """The beginning of a sequence parameter set."""

    def number(value: int) -> str:
        digits = f"{value + 1:b}"
        return "0" * (len(digits) - 1) + digits

    bits = "0" * 4 + "000" + "1" + "0" * 96 + number(0) + number(1) + number(width) + number(height)
    bits += "0" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return b"\x42\x01" + data.replace(b"\0\0\0", b"\0\0\3\0")


def heic(
    *,
    size: tuple[int, int] = (64, 64),
    coded: tuple[int, int] = (64, 64),
    references: int = 1,
    target: int = 1,
    nesting: int = 0,
) -> bytes:
    """A grid of references to one coded tile: the boxes of such a file, without pixels.

    Args:
        size: of the grid.
        coded: of the tile, in its parameter set; its box says 64x64.
        references: of the grid.
        target: number of the item that they name; 1 is the tile, 2 the grid itself.
        nesting: levels of items of two references each, above the grid.
    """
    unit = parameters(*coded)
    configuration = box(b"hvcC", bytes(22) + b"\1" + b"\x21" + struct.pack(">HH", 1, len(unit)) + unit)
    properties = full(b"ispe", struct.pack(">LL", 64, 64)) + configuration + full(b"ispe", struct.pack(">LL", *size))
    uses = struct.pack(">LHB2BHB1B", 2, 1, 2, 1, 2, 2, 1, 3)
    items = 2 + nesting
    kinds = [b"hvc1"] + [b"grid"] * (items - 1)
    entries = b"".join(
        full(b"infe", struct.pack(">HH4s", number, 0, kind) + b"\0", version=2) for number, kind in enumerate(kinds, 1)
    )
    links = struct.pack(">HH", 2, references) + struct.pack(">H", target) * references
    parts = box(b"dimg", links)
    for number in range(3, items + 1):
        parts += box(b"dimg", struct.pack(">HHHH", number, 2, number - 1, number - 1))
    grid = struct.pack(">BBBBHH", 0, 0, 0, 0, *size)
    locations = struct.pack(">BBH", 0x44, 0, items - 1)
    for number in range(2, items + 1):
        locations += struct.pack(">HHHHLL", number, 1, 0, 1, 0, len(grid))
    content = (
        full(b"iinf", struct.pack(">H", items) + entries)
        + full(b"iref", parts)
        + box(b"iprp", box(b"ipco", properties) + full(b"ipma", uses))
        + box(b"idat", grid)
        + full(b"iloc", locations, version=1)
    )
    return HEIC + full(b"meta", content)


def check(data: bytes, most: int = 10**6) -> None:
    def check_size(size: tuple[int, int]) -> None:
        if size[0] * size[1] > most:
            raise LimitExceededError(f"{size[0]}x{size[1]}")

    check_limits(io.BytesIO(data), "HEIF", check_size)


def test_photo_of_a_phone_passes() -> None:
    check(heic(size=(4032, 3024), coded=(512, 512), references=48), most=13_000_000)


def test_size_of_a_parameter_set_is_read() -> None:
    assert coded_size(parameters(4096, 1234)) == (4096, 1234)
    assert coded_size(parameters(4096, 1234)[:16]) == (0, 0)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (heic(size=(30_000, 30_000)), "30000x30000"),
        (heic(coded=(8000, 8000)), "8000x8000"),
        (heic(coded=(512, 512), references=60_000), "pixels in its tiles"),
        (heic(coded=(512, 512), references=16, nesting=6), "pixels in its tiles"),
        (heic(target=2), "levels of items"),
    ],
    ids=["canvas", "stream", "references", "nested references", "circle"],
)
def test_bombs_are_refused_before_they_are_decoded(data: bytes, words: str) -> None:
    with pytest.raises(LimitExceededError, match=words):
        check(data)


def test_damaged_files_pass_the_check() -> None:
    data = heic()
    for end in range(0, len(data), 7):
        check(data[:end])


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(
        ImageError, match=r"^expected a package that reads HEIC images.*; pip install 'cliper\[heif\]'$"
    ):
        load_image(heic())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A HEIC image whose EXIF has an orientation, which its decoder has applied already."""
    heif = pytest.importorskip("pillow_heif")
    image = Image.fromarray(NOISE)
    exif = image.getexif()
    exif[0x0112] = 6
    path = tmp_path / "photo.heic"
    heif.from_pillow(image).save(path, quality=95, exif=exif.tobytes())
    return path


def test_image_is_read(file: Path, pool: DecodePool) -> None:
    image = load_image(file)
    assert (image.mode, image.info) == ("RGB", {})
    assert sorted(image.size) == [64, 96]
    # Noise in 4:2:0 loses its colours; the mean stays.
    assert np.asarray(image).mean() == pytest.approx(NOISE.mean(), abs=3)
    np.testing.assert_array_equal(pool.decode(file), np.asarray(image))


def test_image_with_too_many_pixels_is_refused(file: Path) -> None:
    with pytest.raises(ImageError, match=r"at most 0\.006 megapixels, got (96x64|64x96)"):
        load_image(file, max_pixels=6000)


def test_truncated_image_is_one_error(file: Path) -> None:
    data = file.read_bytes()
    for end in (40, 200, len(data) // 2):  # libheif decodes an image that lacks a few bytes
        with pytest.raises(ImageError):
            load_image(data[:end])
