"""Limits on image files: accepted files, attempts to evade them, damaged and open files, orientation, memory."""

from __future__ import annotations

import contextlib
import io
import random
import socket
import struct
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

import hostile_images as hostile
from cliper.errors import ImageError, ResourceError
from cliper.images import load_image, load_stream
from cliper.images.limits import LimitExceededError, check_limits, exif_orientation, without_exif
from cliper.images.limits import reader as limits_reader
from hostile_images import chunk, encoded, segment
from hostile_tiffs import LONG, SHORT, base_entries, tiff, tiff_block

MEGABYTE = 1_000_000
LINES_PER_STEP = 32  # 26 were seen in LONG_CHECKS


def accepted(data: bytes) -> Image.Image:
    return load_stream(io.BytesIO(data), "an image")


def refusal(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        accepted(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def format_of(data: bytes) -> str:
    """Pillow's name of a file's format, by the first bytes."""
    starts = {b"\xff\xd8": "JPEG", b"II": "TIFF", b"\x89P": "PNG", b"GI": "GIF", b"BM": "BMP", b"\xff\x4f": "JPEG2000"}
    return starts.get(data[:2], "AVIF" if data[4:8] == b"ftyp" else "PPM")


def check_within_budget(data: bytes, format: str) -> None:
    """Run the check, which may refuse the file, and fail if it runs more lines of Python than its budget has steps for.

    The lines of code that was run are counted instead of seconds, which depend on the machine.
    """
    left = LINES_PER_STEP * (limits_reader.MAX_STEPS + len(data) // 64)

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if not frame.f_globals["__name__"].startswith("cliper.images.limits"):
            return None
        left -= event == "line"
        assert left > 0, "the check of this file does work that its budget does not count"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with contextlib.suppress(LimitExceededError):
            check_limits(stream := io.BytesIO(data), format, lambda _: None)
    finally:
        sys.settrace(before)
    assert stream.tell() == 0


# --- just within the limits ------------------------------------------------------------------------------

WITHIN: dict[str, Callable[[], bytes]] = {
    "31 MB of tags": lambda: tiff(hostile.shared(31, MEGABYTE), bytes(MEGABYTE)),
    "a tag of 40 MB, as Photoshop stores layers": lambda: tiff([(37724, 7, 40_000_000, 8)], bytes(40_000_000)),
    "100,000 strips": lambda: tiff(
        data=struct.pack("<L", 8) * 100_000, t257=(LONG, 1, 100_000), t273=(LONG, 100_000, 8), t279=(LONG, 100_000, 8)
    ),
    "16 scans of 2.5 megapixels": lambda: hostile.jpeg_scans(1600, 1600, 15),
    "64 segments of EXIF": lambda: hostile.jpeg_with(*[segment(0xE1, b"Exif\0\0" + bytes(60_000))] * 64),
    "EXIF with a tag twice, as some cameras write it": lambda: hostile.jpeg_with(
        segment(0xE1, b"Exif\0\0" + tiff_block(b"", [[(274, SHORT, 1, 1)] * 2]))
    ),
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


def sequence_header() -> bytes:
    """The AV1 sequence header of most numbers: 32 operating points with all of their options, in 512 bytes."""
    start = "000001" + "0" * 64 + "01" + "11111" + "0" * 42 + "1" + "11111"
    bits = start + ("0" * 12 + "11111" + "01" + "0" * 65 + "10000") * 32
    return int(bits.ljust(8 * 512, "0"), 2).to_bytes(512, "big")


LONG_CHECKS: dict[str, Callable[[], bytes]] = {
    "JPEG strips that share markers": lambda: hostile.tiff_markers(100, 2500),
    "markers between scans": lambda: hostile.jpeg_between_scans(b"\xff\x01" * 50_000),
    "tables between scans": lambda: hostile.jpeg_between_scans(segment(0xC4) * 25_000),
    "frames of 255 components": lambda: hostile.jpeg_between_scans(
        segment(0xC2, struct.pack(">BHHB", 8, 8, 8, 255) + b"\1\x11\0" * 255) * 200
    ),
    "scans of 255 components": lambda: hostile.jpeg_between_scans(segment(0xDA, b"\xff") * 10_000),
    "MPF tables": lambda: hostile.jpeg_mpf_entries(10, 1000),
    "AVIF items that share empty units": lambda: hostile.avif_units(20_000),
    "AVIF sequence headers of many numbers": lambda: hostile.avif_units(12, unit=b"\x0a\x80\4" + sequence_header()),
    "AVIF sequence headers of a number in unary": lambda: hostile.avif_units(
        12, unit=b"\x0a\x80\4" + b"\4" + bytes(7) + b"\2" + bytes(503)
    ),
    "AVIF extents": hostile.avif_overlap,
    "JPEG 2000 levels": lambda: hostile.jp2_levels(2000),
    "JPEG 2000 levels of a component": lambda: hostile.jp2_levels(2000, component=True),
    "GIF blocks": lambda: hostile.gif_with(b"\x21\1" + b"\1a" * 20_000 + b"\0"),
    "PNG chunks": lambda: hostile.png_with(chunk(b"IDAT") * 5000),
}


@pytest.mark.parametrize("case", LONG_CHECKS)
def test_check_ends_with_its_budget(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a small budget, so that small files exceed it."""
    monkeypatch.setattr(limits_reader, "MAX_STEPS", 1000)
    data = LONG_CHECKS[case]()
    check_within_budget(data, format_of(data))
    if case != "frames of 255 components":  # of which ten are read
        assert "parts (segments, blocks, boxes, tags)" in refusal(data)


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
                    *base_entries(),
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
            bytes(2000), [[*base_entries(), (34665, SHORT, 1, 2008 + 2 + 120 + 4)], hostile.shared(60_000, 9)]
        ),
        "tags in a directory",
    ),
    "strips beside a size of tiles": (
        lambda: hostile.tiff_repeated(16, 100).replace(
            struct.pack("<HHLL", 277, SHORT, 1, 1), struct.pack("<HHLL", 322, SHORT, 1, 1)
        ),
        "2 offset(s)",
    ),
    "a tag whose second value is unreadable": (lambda: tiff([(256, LONG, 9, 2**31)]), "a tag twice"),
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
        "parts",
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
        lambda: hostile.gif_with(b"\x21\xff\0" + b"\x02\x2c\0" * 2 + b"\x01a" * 80_000 + b"\0"),
        "parts",
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
    with pytest.raises(LimitExceededError, match="parts"):
        check_limits(io.BytesIO(hostile.avif_overlap()), "AVIF", lambda _: None)


# --- damaged files, streams and images that are open -----------------------------------------------------


def test_check_of_a_damaged_file_raises_no_other_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """On any content the check passes or refuses, within its budget; damage is reported by the decoder."""
    monkeypatch.setattr(limits_reader, "MAX_STEPS", 1000)
    chance = random.Random(0)
    whole = {name: encoded(name) for name in ("JPEG", "PNG", "GIF", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF", "WEBP")}
    for _ in range(3000):
        name = chance.choice(list(whole))
        data = bytearray(whole[name])
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(data))
            data[at : at + chance.randrange(9)] = bytes(chance.choices(range(256), k=chance.randrange(9)))
        check_within_budget(bytes(data[: chance.randrange(len(data)) + 1]), name)


def test_member_of_a_tar_and_file_of_fsspec_are_checked(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(data := hostile.gif_comment(0.2))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "a.gif", "a.gif")
    with fsspec.filesystem("memory").open("/a.gif", "wb") as stream:
        stream.write(data)
    with tarfile.open(tmp_path / "a.tar") as tar, fsspec.filesystem("memory").open("/a.gif", "rb") as remote:
        for stream in (tar.extractfile("a.gif"), remote):
            assert stream is not None
            with pytest.raises(ImageError, match="bytes of comments"):
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

    data = tiff()  # grey
    monkeypatch.setattr(Image.Image, "convert", run_out)
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
