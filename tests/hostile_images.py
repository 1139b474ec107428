"""Hostile images of few bytes: each has a small, plausible header and costs a plain decoder gigabytes or minutes.

``FILES`` maps names to functions that make the bytes; ``UNCHECKED`` has those that no check of headers detects. Their
costs are measured by ``benchmarks/hostile_files.py``.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from PIL import Image

__all__ = ["FILES", "UNCHECKED"]

BYTE, SHORT, LONG, RATIONAL, UNDEFINED = 1, 3, 4, 5, 7
_UNIT = {BYTE: 1, SHORT: 2, LONG: 4, RATIONAL: 8, UNDEFINED: 1}
JPEG_APP1 = 0xE1
_DATA = 8  # where the data of a TIFF block starts: behind its header
_MEGABYTE = 1_000_000

Entry = tuple[int, int, int, int]  # tag, type, number of values, value or offset


def encoded(format: str, size: tuple[int, int] = (8, 8), **options: Any) -> bytes:
    """A black image as a file."""
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, format, **options)
    return buffer.getvalue()


# --- TIFF and EXIF -----------------------------------------------------------------------------------------


def tiff_block(data: bytes, directories: Sequence[Sequence[Entry]], big: bool = False) -> bytes:
    """A little-endian TIFF header, ``data`` from byte 8 (BigTIFF: 16) on, then directories one behind the other."""
    header, number, entry, end = (16, "<Q", "<HHQQ", 8) if big else (8, "<H", "<HHLL", 4)
    start = header + len(data)
    head = struct.pack("<2sHHHQ", b"II", 43, 8, 0, start) if big else struct.pack("<2sHL", b"II", 42, start)
    body = [
        struct.pack(number, len(entries)) + b"".join(struct.pack(entry, *item) for item in entries) + bytes(end)
        for entries in directories
    ]
    return head + data + b"".join(body)


def second_directory(data: bytes, first: Sequence[Entry]) -> int:
    """Offset of the second directory of a block whose first has ``first`` and one more entry."""
    return _DATA + len(data) + 2 + 12 * (len(first) + 1) + 4


def tiff(extra: Iterable[Entry] = (), data: bytes = bytes(16), *, big: bool = False, **changes: Any) -> bytes:
    """A grey TIFF of 1x1 pixel with further entries; ``changes`` replace tags, as in ``t256=(LONG, 1, 9)``."""
    return tiff_block(data, [[*base_entries(16 if big else 8, **changes), *extra]], big)


def base_entries(offset: int = 8, **changes: tuple[int, int, int] | None) -> list[Entry]:
    """The entries that a grey TIFF of 1x1 pixel needs, its pixel at ``offset``."""
    values: dict[int, tuple[int, int, int] | None] = {
        256: (LONG, 1, 1),
        257: (LONG, 1, 1),
        258: (SHORT, 1, 8),
        259: (SHORT, 1, 1),
        262: (SHORT, 1, 1),
        273: (LONG, 1, offset),
        277: (SHORT, 1, 1),
        278: (LONG, 1, 1),
        279: (LONG, 1, 1),
    }
    values |= {int(name[1:]): value for name, value in changes.items()}
    return [(tag, *value) for tag, value in sorted(values.items()) if value is not None]


def shared(entries: int, size: int, offset: int = 8, type: int = UNDEFINED) -> list[Entry]:
    """Entries that all point at the same ``size`` bytes."""
    return [((1000 + i) % 65536, type, size // _UNIT[type], offset) for i in range(entries)]


def exif_block(entries: int, size: int) -> bytes:
    """An EXIF block (a TIFF block without pixels) of entries that share their data."""
    return tiff_block(bytes(size), [shared(entries, size)])


def tiff_shared_entries(entries: int, size: int = _MEGABYTE) -> bytes:
    """Each entry is read into memory of its own."""
    return tiff(shared(entries, size), bytes(size))


def tiff_big_shared_entries(entries: int = 2000, size: int = _MEGABYTE) -> bytes:
    """The same as a BigTIFF."""
    return tiff(shared(entries, size, 16), bytes(size), big=True)


def tiff_pointer(tag: int, entries: Sequence[Entry], data: bytes) -> bytes:
    """A TIFF that points at a second directory, as for EXIF and GPS."""
    first = base_entries()
    return tiff_block(data, [[*first, (tag, LONG, 1, second_directory(data, first))], entries])


def tiff_exif_entries() -> bytes:
    """Shared entries in the EXIF directory."""
    return tiff_pointer(34665, shared(2000, _MEGABYTE), bytes(_MEGABYTE))


def tiff_gps_rationals() -> bytes:
    """Fractions: 8 bytes in the file, about 250 in Python."""
    return tiff_pointer(34853, shared(16, 2 * _MEGABYTE, type=RATIONAL), struct.pack("<2L", 3, 7) * 250_000)


def tiff_many_values() -> bytes:
    """Arrays in tags that hold a few numbers, all in the same 4 MB."""
    arrays = dict.fromkeys(("t258", "t338", "t339"), (LONG, _MEGABYTE, 8))
    return tiff(data=struct.pack("<L", 1234567) * _MEGABYTE, **arrays)


def tiff_strips() -> bytes:
    """A million strips for one pixel."""
    return tiff(data=struct.pack("<2L", 8, 9) * 500_000, t273=(LONG, _MEGABYTE, 8), t279=(LONG, _MEGABYTE, 8))


def tiff_strips_of_rows() -> bytes:
    """A hundred million strips of one row, all missing."""
    return tiff(t257=(LONG, 1, 100_000_000), t259=(SHORT, 1, 5))


def tiff_empty_entries() -> bytes:
    """A BigTIFF directory of empty entries."""
    return tiff(((1000 + i % 60000, LONG, 0, 0) for i in range(200_000)), big=True)


def tiff_tile(side: int = 20_000) -> bytes:
    """One pixel in a deflated tile of 400 megapixels."""
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(bytes(side)) for _ in range(side)) + packer.flush()
    tags = {"t273": None, "t278": None, "t279": None, "t259": (SHORT, 1, 8)}
    tags |= {"t322": (LONG, 1, side), "t323": (LONG, 1, side), "t324": (LONG, 1, 8), "t325": (LONG, 1, len(data))}
    return tiff(data=data, **tags)


def tiff_jpeg_scans() -> bytes:
    """The many scans of a JPEG within a TIFF."""
    data = jpeg_scans(4000, 4000, 1000)
    size = {"t256": (LONG, 1, 4000), "t257": (LONG, 1, 4000), "t278": (LONG, 1, 4000)}
    return tiff(data=data, t259=(SHORT, 1, 7), t279=(LONG, 1, len(data)), **size)


# --- JPEG --------------------------------------------------------------------------------------------------


def segment(marker: int, data: bytes = b"") -> bytes:
    """A JPEG segment with its length."""
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data


def jpeg_with(*segments: bytes) -> bytes:
    """A JPEG of 8x8 pixels with further segments behind its first two bytes."""
    body = encoded("JPEG")
    return body[:2] + b"".join(segments) + body[2:]


def jpeg_scans(width: int, height: int, scans: int, *, restart: int = 0, kind: int = 0xC2) -> bytes:
    """A progressive JPEG of many scans of a few bytes, each a pass over all coefficients.

    Args:
        restart: blocks between two restart markers, all missing.
        kind: 0xC2 for Huffman coding, 0xCA for arithmetic coding.
    """

    def packed(bits: str) -> bytes:
        bits += "1" * (-len(bits) % 8)
        return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)).replace(b"\xff", b"\xff\0")

    blocks = ((width + 7) // 8) * ((height + 7) // 8)
    start = b"\xff\xd8" + segment(0xDB, b"\0" + b"\1" * 64)
    start += segment(kind, struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0")
    start += segment(0xC4, b"\0\1" + bytes(15) + b"\0") + segment(0xC4, b"\x10\1" + bytes(15) + b"\xe0")
    start += segment(0xDD, struct.pack(">H", restart)) if restart else b""
    start += segment(0xDA, b"\1\1\0\0\0\0") + packed("0" * blocks)
    runs, left = "", blocks
    while left > 0:
        run = max(min(left, 32767), 16384)
        runs, left = runs + "0" + format(run - 16384, "014b"), left - run
    return start + (segment(0xDA, b"\1\1\0\1\x3f\x10") + packed(runs)) * scans + b"\xff\xd9"


def jpeg_arithmetic() -> bytes:
    """Arithmetic coding without data: the decoder makes 63 coefficients a block from missing bits."""
    start = jpeg_scans(4000, 4000, 0, kind=0xCA)
    return start[:-2] + segment(0xDA, b"\1\1\0\1\x3f\x10") + b"\x55" * 8 + b"\xff\xd9"


def jpeg_mpf() -> bytes:
    """A table of a phone's further images whose entries share fractions."""
    return jpeg_with(segment(0xE2, b"MPF\0" + tiff_block(bytes(32_000), [shared(2700, 32_000, type=RATIONAL)])))


def jpeg_mpo_scans() -> bytes:
    """Many scans in the first of a phone's two images."""
    start = jpeg_scans(5000, 4000, 1000)
    images = struct.pack("<LLLHH", 0x030000, 100, 0, 0, 0) + struct.pack("<LLLHH", 0, 100, 100, 0, 0)
    table = tiff_block(images, [[(0xB000, UNDEFINED, 4, 0x30303130), (0xB001, LONG, 1, 2), (0xB002, UNDEFINED, 32, 8)]])
    return start[:2] + segment(0xE2, b"MPF\0" + table) + start[2:]


# --- PNG ---------------------------------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    """A PNG chunk with length and checksum."""
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def png_with(*chunks: bytes) -> bytes:
    """A PNG of 8x8 pixels with further chunks before its pixels."""
    body = encoded("PNG")
    return body[:33] + b"".join(chunks) + body[33:]


def png_idats() -> bytes:
    """Empty chunks of pixels."""
    return png_with(chunk(b"IDAT") * 700_000)


def png_profiles() -> bytes:
    """Colour profiles that unpack to a megabyte each."""
    profile = b"a\0\0" + zlib.compress(bytes(_MEGABYTE), 9)
    return png_with(chunk(b"iCCP", profile) * 4000)


def png_texts(count: int = 60) -> bytes:
    """Texts that unpack to a megabyte each, of characters that take 4 bytes in Python."""
    packed = zlib.compress("\U0001f600".encode() + b"a" * (_MEGABYTE - 4), 9)
    return png_with(*(chunk(b"iTXt", b"k%d\0\1\0\0\0" % index + packed) for index in range(count)))


def png_frame() -> bytes:
    """An animation of 900 megapixels whose first frame is cleared: Pillow does so before the size is known."""
    side = 30_000
    header = chunk(b"IHDR", struct.pack(">LLBBBBB", side, side, 8, 6, 0, 0, 0))
    frame = chunk(b"fcTL", struct.pack(">LLLLLHHBB", 0, side, side, 0, 0, 1, 1, 1, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"acTL", struct.pack(">LL", 2, 0)) + frame + chunk(b"IDAT", b"x")


# --- GIF and WebP ------------------------------------------------------------------------------------------

_GIF_HEAD = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
_GIF_FRAME = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"


def gif_with(extensions: bytes, frames: int = 1) -> bytes:
    """A GIF of 1x1 pixel with extensions before its frames."""
    return _GIF_HEAD + extensions + _GIF_FRAME * frames + b"\x3b"


def gif_comment(megabytes: float) -> bytes:
    """One comment of one-byte blocks: Pillow copies the comment for each."""
    return gif_with(b"\x21\xfe" + b"\x01a" * (int(megabytes * 1e6) // 2) + b"\0")


def webp_canvas() -> bytes:
    """A header with 16383x16383 pixels: two canvases of a gigabyte."""
    frame = encoded("WEBP")[12:]
    anim = b"ANIM" + struct.pack("<LLH", 6, 0, 0)
    data = bytes(12) + b"\x08\0\0" + b"\x08\0\0" + bytes(4)
    frames = b"ANMF" + struct.pack("<L", 16 + len(frame)) + (data + bytes(16))[:16] + frame
    canvas = b"VP8X" + struct.pack("<L", 10) + b"\2\0\0\0" + 2 * struct.pack("<L", 16382)[:3]
    body = b"WEBP" + canvas + anim + frames
    return b"RIFF" + struct.pack("<L", len(body)) + body


def webp_frames(count: int = 100_000) -> bytes:
    """Many tiny frames, of which only the first is used."""
    frame = encoded("WEBP", (1, 1))[12:]
    one = b"ANMF" + struct.pack("<L", 16 + len(frame)) + bytes(16) + frame
    canvas = b"VP8X" + struct.pack("<L", 10) + b"\2\0\0\0" + bytes(6)
    body = b"WEBP" + canvas + b"ANIM" + struct.pack("<LLH", 6, 0, 0) + one * count
    return b"RIFF" + struct.pack("<L", len(body)) + body


def webp_groups(side: int = 1024) -> bytes:
    """A lossless WebP with 65,536 groups of Huffman codes, of which each takes 5 KB of tables and 20 bits here."""
    fields: list[str] = []  # bits, the first to be read first

    def put(value: int, bits: int) -> None:
        fields.append(format(value, f"0{bits}b")[::-1])

    def code_of_one_symbol() -> None:
        fields.append("1000")

    def code_of_bytes() -> None:
        put(0, 1)
        put(8, 4)  # lengths of 12 code lengths follow; 18 and 8 are used
        for length in (17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8):
            put(int(length in (8, 18)), 3)
        put(1, 1), put(3, 3), put(254, 8)  # 256 symbols
        fields.append("0" * 256)  # each of 8 bits

    put(0x2F, 8), put(side - 1, 14), put(side - 1, 14), put(0, 4)
    put(0, 1)  # no transform
    put(1, 1), put(11, 4)  # a colour cache
    put(1, 1), put(0, 3), put(0, 1)  # a group of codes for each 4x4 pixels, named by red and green of an image
    code_of_bytes(), code_of_bytes(), code_of_one_symbol(), code_of_one_symbol(), code_of_one_symbol()
    for group in range((side // 4) ** 2):
        fields.append(format(group & 255, "08b") + format(group >> 8, "08b"))
    for _ in range(5 * (side // 4) ** 2):
        code_of_one_symbol()
    bits = "".join(fields) + "0" * 64
    data = int(bits[::-1], 2).to_bytes(-(-len(bits) // 16) * 2, "little")
    body = b"WEBPVP8L" + struct.pack("<L", len(data)) + data
    return b"RIFF" + struct.pack("<L", len(body)) + body


# --- AVIF and JPEG 2000 ------------------------------------------------------------------------------------


def avif_exif() -> bytes:
    """EXIF entries that share their data; Pillow reads them when it opens the file."""
    return encoded("AVIF", exif=exif_block(2000, 500_000))


def avif_lie() -> bytes:
    """8x8 pixels by its header, 5000x5000 in its stream."""
    data = encoded("AVIF", (5000, 5000), speed=10)
    return data.replace(
        b"ispe" + bytes(4) + struct.pack(">LL", 5000, 5000), b"ispe" + bytes(4) + struct.pack(">LL", 8, 8)
    )


def avif_overlap() -> bytes:
    """An item of 10,000 parts, each of which is the whole image."""
    data = encoded("AVIF", (512, 512), quality=100)
    at = data.index(b"iloc") - 4
    table = (
        struct.pack(">LHHHH", 0, 0x4400, 1, 1, 0)
        + struct.pack(">H", 10_000)
        + struct.pack(">LL", 0, len(data)) * 10_000
    )
    box = struct.pack(">L4s", 8 + len(table), b"iloc") + table
    return data[:at] + box + data[at:]


def jp2(width: int, height: int, *, tile: int = 0, coding: bytes = b"", levels: int = 0, boxed: bool = False) -> bytes:
    """A JPEG 2000 file with any size in its header and the stream of an image of 8x8 pixels.

    Args:
        tile: side of the tiles; 0 for one tile.
        coding: the COD segment after style, progression, layers and colour transform: levels, block sizes, ...
        levels: if there is no ``coding``, wavelet levels.
        boxed: as JP2 with boxes, else as a bare stream.
    """
    data = bytearray(encoded("JPEG2000", no_jp2=not boxed, num_resolutions=levels + 1))
    start = bytes(data).index(b"\xff\x4f\xff\x51") + 8
    struct.pack_into(">8L", data, start, width, height, 0, 0, tile or width, tile or height, 0, 0)
    if boxed:
        struct.pack_into(">2L", data, bytes(data).index(b"ihdr") + 4, height, width)
    at = bytes(data).index(b"\xff\x52")
    (length,) = struct.unpack_from(">H", data, at + 2)
    body = bytes(data[at + 4 : at + 2 + length])
    if coding:
        body = bytes([int(len(coding) > 5)]) + body[1:5] + coding
    return bytes(data[:at]) + segment(0x52, body) + bytes(data[at + 2 + length :])


def jp2_components() -> bytes:
    """Three components by the file's header, 16,384 in each of 65,025 tiles by its stream."""
    data = jp2(255, 255, tile=1, boxed=True)
    at = data.index(b"\xff\x4f\xff\x51") + 2
    siz = data[at + 4 : at + 38] + struct.pack(">H", 16384) + b"\7\1\1" * 16384
    return data[:at] + segment(0x51, siz) + data[at + 2 + struct.unpack_from(">H", data, at + 2)[0] :]


def jp2_layers() -> bytes:
    """65,535 layers in each of 1,024 tiles."""
    data = bytearray(encoded("JPEG2000", (2000, 2000), no_jp2=True, num_resolutions=2, tile_size=(64, 64)))
    struct.pack_into(">H", data, bytes(data).index(b"\xff\x52") + 6, 65535)
    return bytes(data)


def jp2_with(data: bytes, before: bytes, parts: bytes) -> bytes:
    """Further bytes before the first occurrence of ``before``."""
    at = data.index(before)
    return data[:at] + parts + data[at:]


# --- BMP and PPM -------------------------------------------------------------------------------------------


def bmp_rle(width: int, height: int, data: bytes) -> bytes:
    """A run-length coded BMP."""
    head = struct.pack("<LLLHHLLLLLL", 40, width, height, 1, 8, 1, len(data), 0, 0, 256, 0) + bytes(range(256)) * 4
    return b"BM" + struct.pack("<LLL", 14 + len(head) + len(data), 0, 14 + len(head)) + head + data


def ppm_comments() -> bytes:
    """Comments among the numbers: Pillow copies the rest of a megabyte for each."""
    return b"P2\n1000 1000\n255\n" + b"0 " * 40_000 + b"#\n" * 500_000


FILES: dict[str, Callable[[], bytes]] = {
    "entries_2000.tif": lambda: tiff_shared_entries(2000),
    "entries_60000.tif": lambda: tiff_shared_entries(60_000),
    "exif.png": lambda: png_with(chunk(b"eXIf", exif_block(2000, _MEGABYTE))),
    "exif.jpg": lambda: jpeg_with(segment(JPEG_APP1, b"Exif\0\0" + exif_block(2500, 30_000))),
    "comment_1mb.gif": lambda: gif_comment(1),
    "comment_4mb.gif": lambda: gif_comment(4),
    "comment_16mb.gif": lambda: gif_comment(15.9),
    "scans_1000.jpg": lambda: jpeg_scans(5000, 4000, 1000),
    "scans_30000.jpg": lambda: jpeg_scans(5000, 4000, 30_000),
    "big_entries.tif": tiff_big_shared_entries,
    "exif_entries.tif": tiff_exif_entries,
    "gps_fractions.tif": tiff_gps_rationals,
    "values.tif": tiff_many_values,
    "strips.tif": tiff_strips,
    "strips_of_rows.tif": tiff_strips_of_rows,
    "empty_entries.tif": tiff_empty_entries,
    "tile.tif": tiff_tile,
    "scans.tif": tiff_jpeg_scans,
    "scans_restart.jpg": lambda: jpeg_scans(5000, 4000, 100, restart=1),
    "scans_tiny.jpg": lambda: jpeg_scans(8, 8, 200_000),
    "scans_arithmetic.jpg": lambda: jpeg_scans(5000, 4000, 100, kind=0xCA),
    "arithmetic.jpg": jpeg_arithmetic,
    "comments.jpg": lambda: jpeg_with(segment(0xFE) * _MEGABYTE),
    "junk.jpg": lambda: jpeg_with(bytes(10 * _MEGABYTE)),
    "exif_parts.jpg": lambda: jpeg_with(segment(JPEG_APP1, b"Exif\0\0a") * 200_000),
    "exif_names.jpg": lambda: jpeg_with(*[segment(JPEG_APP1, b"Exif\0\0" * 10_900)] * 60),
    "photoshop.jpg": lambda: jpeg_with(segment(0xED, b"Photoshop 3.0\0" + (b"8BIM\0\1\0\0" + bytes(4)) * 5400) * 200),
    "mpf.jpg": jpeg_mpf,
    "mpo_scans.jpg": jpeg_mpo_scans,
    "chunks.png": lambda: png_with(chunk(b"abCd") * 700_000),
    "texts_plain.png": lambda: png_with(chunk(b"tEXt", b"a\0b") * 500_000),
    "idats.png": png_idats,
    "profiles.png": png_profiles,
    "texts.png": png_texts,
    "chromaticity.png": lambda: png_with(chunk(b"cHRM", struct.pack(">L", 1234567) * 2 * _MEGABYTE)),
    "frame.png": png_frame,
    "comments.gif": lambda: gif_with(b"\x21\xfe\0" * (2 * _MEGABYTE)),
    "extensions.gif": lambda: gif_with(b"\x21\xff\1a\0" * (2 * _MEGABYTE)),
    "blocks.gif": lambda: gif_with(b"\x21\1" + b"\1a" * (5 * _MEGABYTE) + b"\0"),
    "frames.gif": lambda: gif_with(b"", 500_000),
    "canvas.webp": webp_canvas,
    "frames.webp": webp_frames,
    "exif.avif": avif_exif,
    "lie.avif": avif_lie,
    "tiles.j2k": lambda: jp2(255, 255, tile=1),
    "components.jp2": jp2_components,
    "precincts.j2k": lambda: jp2(4000, 4000, coding=b"\0\4\4\0\1\0"),
    "layers.j2k": jp2_layers,
    "blocks.j2k": lambda: jp2(8000, 8000, coding=b"\0\0\0\0\1"),
    "markers.j2k": lambda: jp2_with(jp2(8, 8), b"\xff\x52", segment(0x57) * _MEGABYTE),
    "boxes.jp2": lambda: jp2_with(
        jp2(8, 8, boxed=True), b"\0\0\0\x14ftyp", (struct.pack(">L", 8) + b"free") * _MEGABYTE
    ),
    "rle_delta.bmp": lambda: bmp_rle(100_000_000, 1, b"\0\2\0\xff"),
    "rle_line.bmp": lambda: bmp_rle(100_000_000, 1, b"\1\1\0\0"),
    "comments.ppm": ppm_comments,
    "blanks.ppm": lambda: b"P6 " + b" " * (10 * _MEGABYTE) + b"1 1 255 abc",
    "header_comment.ppm": lambda: b"P6 #" + b"a" * (10 * _MEGABYTE) + b"\n1 1 255 abc",
    "plain.ppm": lambda: b"P3 2000 2000 255\n" + b"0 " * 12 * _MEGABYTE,
    "maxval.ppm": lambda: b"P6 2000 2000 254\n" + bytes(12 * _MEGABYTE),
}
UNCHECKED: dict[str, Callable[[], bytes]] = {"groups.webp": webp_groups}
