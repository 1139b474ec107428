"""Limits on image files: accepted files, attempts to evade them, damaged and open files, orientation, memory."""

from __future__ import annotations

import contextlib
import io
import random
import socket
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

import hostile_images as hostile
from cliper.errors import ImageError, ResourceError
from cliper.images import load_image, load_stream
from cliper.images.limits import LimitExceededError, check_limits, exif_orientation, without_exif
from hostile_images import LONG, SHORT, chunk, encoded, segment, tiff, tiff_block

MEGABYTE = 1_000_000


def accepted(data: bytes) -> Image.Image:
    return load_stream(io.BytesIO(data), "an image")


def refusal(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        accepted(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- just within the limits ------------------------------------------------------------------------------

WITHIN: dict[str, Callable[[], bytes]] = {
    "31 MB of tags": lambda: tiff(hostile.shared(31, MEGABYTE), bytes(MEGABYTE)),
    "a tag of 40 MB, as Photoshop stores layers": lambda: tiff([(37724, 7, 40_000_000, 8)], bytes(40_000_000)),
    "100,000 strips": lambda: tiff(
        data=struct.pack("<L", 8) * 100_000, t257=(LONG, 1, 100_000), t273=(LONG, 100_000, 8), t279=(LONG, 100_000, 8)
    ),
    "16 scans of 2.5 megapixels": lambda: hostile.jpeg_scans(1600, 1600, 15),
    "64 segments of EXIF": lambda: hostile.jpeg_with(*[segment(0xE1, b"Exif\0\0" + bytes(60_000))] * 64),
    "4,000 JPEG segments": lambda: hostile.jpeg_with(*[segment(0xFE, bytes(500))] * 4000),
    "60,000 bytes between segments": lambda: hostile.jpeg_with(segment(0xFE), b"\xff" * 60_000),
    "100,000 PNG chunks of pixels": lambda: hostile.png_with(chunk(b"IDAT") * 100_000),
    "8,000 PNG texts": lambda: hostile.png_with(chunk(b"tEXt", b"a\0b") * 8000),
    "30 packed PNG texts": lambda: hostile.png_texts(30),
    "60,000 bytes of a GIF comment": lambda: hostile.gif_with(b"\x21\xfe" + b"\x02aa" * 30_000 + b"\0"),
    "4 megapixels of a run-length BMP": lambda: hostile.bmp_rle(65_536, 64, b"\1\1\0\0" * 64),
    "2 million samples of a PPM of text": lambda: b"P2 1000 2000 255\n" + b"1 " * 2_000_000,
    "60,000 blanks in a PPM header": lambda: b"P6 " + b" " * 60_000 + b"1 1 255 abc",
    "8,100 JPEG 2000 tiles": lambda: encoded("JPEG2000", (90, 90), num_resolutions=1, tile_size=(4, 4)),
}


@pytest.mark.parametrize("case", WITHIN)
def test_files_within_the_limits_are_decoded(case: str) -> None:
    assert accepted(WITHIN[case]()).width > 0


# --- evasion ---------------------------------------------------------------------------------------------


def bigtiff_of_motorola() -> bytes:
    """Pillow reads it as a TIFF with a harmless directory; libtiff as a BigTIFF with a hostile one."""
    place = 0x00080000  # the offset of the first directory for Pillow
    entries = [(1000 + i, 7, MEGABYTE, 16) for i in range(100)]
    big = struct.pack(">Q", 100) + b"".join(struct.pack(">HHQQ", *entry) for entry in entries) + bytes(8)
    head = struct.pack(">2sHHHQ", b"MM", 43, 8, 0, MEGABYTE + 16)
    small = struct.pack(">H", 1) + struct.pack(">HHLL", 256, 4, 1, 1) + bytes(4)
    data = bytearray(MEGABYTE)
    data[place - 16 : place - 16 + len(small)] = small
    return head + bytes(data) + big


def jpeg_strips_without_end() -> bytes:
    """A thousand strips that share one progressive scan, and 4 MB without a marker behind it."""
    data = hostile.jpeg_scans(64, 64, 0)[:-2] + bytes(4 * MEGABYTE)
    data += bytes(-len(data) % 4)
    size = {"t256": (LONG, 1, 64), "t257": (LONG, 1, 64_000), "t278": (LONG, 1, 64), "t259": (SHORT, 1, 7)}
    return tiff(data=data + struct.pack("<L", 8) * 1000, t273=(LONG, 1000, 8 + len(data)), **size)


def repeated_components() -> bytes:
    """Three components of one name: a scan of one of them is not the last."""
    data = hostile.jpeg_scans(4000, 4000, 40)
    frame = struct.pack(">HHB", 4000, 4000, 1) + b"\1\x11\0"
    at = data.index(frame) - 5
    return data[:at] + segment(0xC1, b"\x08" + frame[:4] + b"\3" + b"\1\x11\0" * 3) + data[at + 4 + 1 + len(frame) :]


EVASIONS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a big-endian BigTIFF": (bigtiff_of_motorola, "of tags"),
    "an unreadable entry before it": (
        lambda: tiff_block(
            bytes(16),
            [
                [
                    (255, LONG, 9, 2**31),
                    *hostile.base_entries(),
                    (284, SHORT, 9, 2**31),
                    (322, LONG, 1, 30_000),
                    (323, LONG, 1, 30_000),
                ]
            ],
        ),
        "times its pixels",
    ),
    "a directory that is cut off": (lambda: hostile.tiff_shared_entries(2000)[:-7], "of tags"),
    "a pointer to EXIF that is a SHORT": (
        lambda: tiff_block(
            bytes(2000), [[*hostile.base_entries(), (34665, SHORT, 1, 2008 + 2 + 120 + 4)], hostile.shared(60_000, 9)]
        ),
        "tags in a directory",
    ),
    "JPEG tiles after a missing one": (
        lambda: tiff(
            data=(scans := hostile.jpeg_scans(1000, 4000, 300)) + bytes(-len(scans) % 4) + struct.pack("<2L", 2**31, 8),
            t256=(LONG, 1, 1000),
            t257=(LONG, 1, 8000),
            t278=(LONG, 1, 4000),
            t259=(SHORT, 1, 7),
            t273=(LONG, 2, 8 + len(scans) + -len(scans) % 4),
        ),
        "JPEG scans",
    ),
    "JPEG strips without a marker after their scan": (
        jpeg_strips_without_end,
        "JPEG scans",
    ),
    "components of one name": (repeated_components, "JPEG scans"),
    "filling between scans": (
        lambda: hostile.jpeg_scans(5000, 4000, 100).replace(b"\xff\xda", b"\xff\xd0\xff\x01\xff\xff\xff\xda"),
        "JPEG scans",
    ),
    "EXIF in a JPEG that is cut off": (
        lambda: b"\xff\xd8" + segment(0xE1, b"Exif\0\0" + bytes(1000)) * 100,
        "segments of EXIF",
    ),
    "EXIF after two of its names": (
        lambda: hostile.jpeg_with(segment(0xE1, b"Exif\0\0Exif\0\0" + hostile.exif_block(2500, 30_000))),
        "of tags",
    ),
    "a second IHDR": (
        lambda: hostile.png_with(chunk(b"IHDR", struct.pack(">LLBBBBB", 30_000, 30_000, 8, 6, 0, 0, 0))),
        "megapixels",
    ),
    "a sub-block that Pillow skips": (
        lambda: hostile.gif_with(b"\x21\xff\0" + b"\x02\x2c\0" * 2 + b"\x01a" * 40_000 + b"\0"),
        "GIF blocks",
    ),
    "a comment within a number": (lambda: b"P2 4#\n000 4000 255 1 1", "samples in a PPM"),
    "a number with an underscore": (lambda: b"P2 4_000 4000 255 1 1", "samples in a PPM"),
    "two headers of different sizes": (
        lambda: hostile.jp2(4000, 4000, boxed=True).replace(
            struct.pack(">4sLL", b"ihdr", 4000, 4000), struct.pack(">4sLL", b"ihdr", 8, 8)
        ),
        "headers agree",
    ),
}


@pytest.mark.parametrize("case", EVASIONS)
def test_limits_cannot_be_evaded(case: str) -> None:
    make, words = EVASIONS[case]
    assert words in refusal(make())


def test_overlapping_extents_of_an_avif_item_are_refused() -> None:
    with pytest.raises(LimitExceededError, match="overlap"):
        check_limits(io.BytesIO(hostile.avif_overlap()), "AVIF", lambda _: None)


# --- damaged files, streams and images that are open -----------------------------------------------------


def test_check_of_a_damaged_file_raises_no_other_error() -> None:
    """On any content the check passes or refuses; damage is reported by the decoder."""
    chance = random.Random(0)
    whole = {name: encoded(name) for name in ("JPEG", "PNG", "GIF", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF", "WEBP")}
    for _ in range(3000):
        name = chance.choice(list(whole))
        data = bytearray(whole[name])
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(data))
            data[at : at + chance.randrange(9)] = bytes(chance.choices(range(256), k=chance.randrange(9)))
        stream = io.BytesIO(bytes(data[: chance.randrange(len(data)) + 1]))
        with contextlib.suppress(LimitExceededError):
            check_limits(stream, name, lambda size: None)
        assert stream.tell() == 0


def test_member_of_a_tar_and_file_of_fsspec_are_checked(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(data := hostile.gif_comment(0.2))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "a.gif", "a.gif")
    with fsspec.filesystem("memory").open("/a.gif", "wb") as stream:
        stream.write(data)
    with tarfile.open(tmp_path / "a.tar") as tar, fsspec.filesystem("memory").open("/a.gif", "rb") as remote:
        for stream in (tar.extractfile("a.gif"), remote):
            assert stream is not None
            with pytest.raises(ImageError, match="GIF blocks"):
                load_stream(stream, "a.gif")


def test_open_image_that_is_not_decoded_is_checked(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(hostile.jpeg_scans(5000, 4000, 100))
    with Image.open(tmp_path / "a.jpg") as opened, pytest.raises(ImageError, match="JPEG scans"):
        load_image(opened)


def test_frame_of_an_open_image_stays_selected(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), (50 * i, 0, 0)) for i in range(3)]
    for name in ("GIF", "TIFF", "PNG"):
        frames[0].save(tmp_path / "a", name, save_all=True, append_images=frames[1:])
        with Image.open(tmp_path / "a") as opened:
            opened.seek(1)
            assert np.asarray(load_image(opened))[0, 0].tolist() == [50, 0, 0]
            opened.seek(2)
            assert np.asarray(load_image(opened))[0, 0].tolist() == [100, 0, 0]
    with (tmp_path / "a").open("rb") as stream:
        opened = Image.open(stream)
        opened.load()
    assert load_image(opened).size == (8, 8)  # its file is closed


# --- orientation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("type", [SHORT, LONG])
def test_orientation_is_read_in_both_byte_orders(order: str, type: int) -> None:
    value = struct.pack(order + ("HH" if type == SHORT else "L"), *((6, 0) if type == SHORT else (6,)))
    entries = struct.pack(order + "HHHL4s", 2, 271, 2, 4, b"abc\0") + struct.pack(order + "HHL", 274, type, 1) + value
    head = struct.pack(order + "2sHL", b"II" if order == "<" else b"MM", 42, 8)
    assert exif_orientation(b"Exif\0\0Exif\0\0" + head + entries + bytes(4)) == 6


def test_orientation_of_other_blocks_is_none() -> None:
    for block in (b"", b"Exif\0\0", b"II*\0", b"no block at all", encoded("TIFF"), hostile.exif_block(9, 9)):
        assert exif_orientation(block) is None


def test_orientation_is_read_without_other_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also from ImageMagick's text, and from XMP if EXIF has none."""
    monkeypatch.setattr(Image.Image, "getexif", lambda _: pytest.fail("Pillow read the EXIF block"))
    turned = tiff_block(b"", [[(274, SHORT, 1, 6), *hostile.shared(3, 9_000)]])
    text = b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n  99\n" + (b"Exif\0\0" + turned).hex().encode())
    packet = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'
    for extra in (chunk(b"eXIf", turned), chunk(b"zTXt", text), chunk(b"iTXt", packet)):
        data = encoded("PNG", (4, 2))
        assert accepted(data[:33] + extra + data[33:]).size == (2, 4)


def test_orientation_of_avif_is_its_property_not_exif() -> None:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        data = encoded("AVIF", (16, 8), exif=exif, quality=100)
        with Image.open(io.BytesIO(data)) as opened, Image.open(io.BytesIO(without_exif(data))) as bare:
            assert bare.getexif().get(274, 1) == opened.getexif().get(274, 1) == orientation
        assert accepted(data).size == ((8, 16) if orientation > 4 else (16, 8))


# --- memory and special files ----------------------------------------------------------------------------


@pytest.mark.parametrize("error", [MemoryError(), OSError("decoder error -9"), OSError("out of memory when reading")])
@pytest.mark.parametrize("place", ["PIL.PngImagePlugin.PngImageFile._open", "PIL.ImageFile.ImageFile.load"])
def test_out_of_memory_is_not_reported_as_damage(monkeypatch: pytest.MonkeyPatch, error: Exception, place: str) -> None:
    def run_out(*_: Any) -> None:
        raise error

    monkeypatch.setattr(place, run_out)
    with pytest.raises(ResourceError, match="memory ran out while decoding 'an image'"):
        accepted(encoded("PNG"))


def test_out_of_memory_in_conversion_is_not_reported_as_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(*_: Any) -> None:
        raise MemoryError

    data = encoded("TIFF")
    monkeypatch.setattr(Image.Image, "copy", run_out)
    with pytest.raises(ResourceError, match="memory ran out"):
        accepted(data)


def test_socket_and_device_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("a.png")  # a relative path: those of sockets are short
        for path in ("a.png", "/dev/zero", "/dev/null"):
            with pytest.raises(ImageError, match="a socket, pipe or device"):
                load_image(path)


def test_side_of_more_than_a_million_pixels_is_refused() -> None:
    """Pillow keeps a pointer for each row: 8 bytes for a pixel of one."""
    assert "1,048,576 pixels a side" in refusal(tiff(t257=(LONG, 1, 2_000_000), t278=(LONG, 1, 2_000_000)))
