"""Limits of PNG, GIF, BMP and PPM files."""

from __future__ import annotations

import re

from cliper.images.limits.reader import MAX_METADATA, CheckSize, LimitExceededError, Reader, check_limit

__all__ = ["check_bmp", "check_gif", "check_png", "check_ppm"]

MAX_DATA_CHUNKS = 2**17  # of a PNG
MAX_OTHER_CHUNKS = 2**13
_MAX_FIXED = 1024  # bytes of a PNG chunk whose size the standard fixes or bounds
_FIXED = (b"IHDR", b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"acTL", b"fcTL")
_COMPRESSED = (b"iCCP", b"zTXt", b"iTXt")
_MAX_RATIO = 1032  # of deflate
_MAX_UNPACKED = 2**20  # bytes to which Pillow unpacks a PNG chunk

MAX_BLOCKS = 2**15  # before the first image of a GIF
MAX_COMMENT = 2**16  # bytes before the first image of a GIF; Pillow copies them for each further block

MAX_RUN_PIXELS = 2**22  # of a run-length coded BMP
MAX_RUN_WIDTH = 2**16  # of a run-length coded BMP, which can skip 255 rows in a few bytes

MAX_HEADER = 2**16  # bytes of a PPM's header
MAX_SAMPLES = 2**21  # of a PPM that Pillow decodes in Python, sample by sample
MAX_TEXT = 2**26  # bytes of a PPM of text
MAX_COMMENTS = 64  # in a PPM of text
_BANDS = {b"P3": 3, b"P6": 3, b"P0CMYK": 4, b"PyCMYK": 4, b"PyRGBA": 4}
_READ_SIZE = 2**20


def check_png(reader: Reader, check_size: CheckSize) -> None:
    """Check the number of chunks, and the unpacked size of the metadata."""
    position, data_chunks, others, metadata = 8, 0, 0, 0
    while True:
        size, kind = reader.unpack(">L4s", position)
        if kind == b"IEND":
            return
        if kind == b"IHDR":
            check_size(reader.unpack(">LL", position + 8))
        if kind in (b"IDAT", b"fdAT"):
            data_chunks += 1
        else:
            others += 1
            metadata += size + (min(_MAX_RATIO * size, _MAX_UNPACKED) if kind in _COMPRESSED else 0)
        if kind in _FIXED:
            check_limit(size, _MAX_FIXED, f"bytes in its PNG chunk {kind.decode()}")
        check_limit(data_chunks, MAX_DATA_CHUNKS, "PNG chunks of pixels")
        check_limit(others, MAX_OTHER_CHUNKS, "PNG chunks besides pixels")
        check_limit(metadata, MAX_METADATA, "MiB of metadata, unpacked", unit=2**20)
        position += 12 + size


def check_gif(reader: Reader, check_size: CheckSize) -> None:
    """Check the extensions before the first image, in Pillow's reading of them."""
    flags = reader.read(10, 1)[0]
    position = 13 + (3 << (flags & 7) + 1 if flags & 128 else 0)
    blocks = comment = 0

    def next_block() -> bytes:
        nonlocal position, blocks
        size = reader.read(position, 1)[0]
        data = reader.read(position + 1, size)
        position, blocks = position + 1 + size, blocks + 1
        check_limit(blocks, MAX_BLOCKS, "GIF blocks before its pixels")
        return data

    while (kind := reader.read(position, 1)) != b";":
        position += 1
        if kind == b",":  # an image
            left, top, width, height = reader.unpack("<4H", position)
            check_size((left + max(width, 1), top + max(height, 1)))
            return
        if kind != b"!":  # filling
            check_limit(blocks := blocks + 1, MAX_BLOCKS, "GIF blocks before its pixels")
            continue
        label = reader.read(position, 1)[0]
        position += 1
        data = next_block()
        if label == 0xFE:  # a comment
            while data:
                check_limit(comment := comment + len(data), MAX_COMMENT, "bytes of comments")
                data = next_block()
            continue
        if label == 0xFF and data.startswith(b"NETSCAPE2.0"):
            next_block()
        while next_block():
            pass


def check_bmp(reader: Reader, _: CheckSize) -> None:
    """Check the size of run-length coded images, which Pillow decodes in Python."""
    (size,) = reader.unpack("<L", 14)
    width, height, compression = reader.unpack("<Ll4xL", 18)
    if size != 12 and compression in (1, 2):
        check_limit(width, MAX_RUN_WIDTH, "pixels a row in a run-length coded BMP")
        check_limit(width * abs(height), MAX_RUN_PIXELS, "pixels in a run-length coded BMP")


def check_ppm(reader: Reader, _: CheckSize) -> None:
    """Check the length of the header, and the size of what is decoded in Python: text, and unusual greatest values."""
    data = reader.read(0, min(reader.size, MAX_HEADER))
    magic = data[:6].split(maxsplit=1)[0]
    # A comment may be within a number, too.
    parts = re.sub(rb"#[^\r\n]*[\r\n]?", b"", data[len(magic) :]).split(maxsplit=3)
    needed = 2 if magic in (b"P1", b"P4") else 3  # width, height and greatest value
    if len(parts) <= needed and len(data) < reader.size:
        raise LimitExceededError(
            f"expected an image with a PPM header of at most {MAX_HEADER:,} bytes, got a longer one"
        )
    text = magic in (b"P1", b"P2", b"P3")
    try:
        width, height = int(parts[0]), int(parts[1])
        usual = (255, 65535) if magic == b"P5" else (255,)  # greatest values that are decoded in C
        if magic in (b"P4", b"Pf") or (not text and int(parts[2]) in usual):
            return
    except ValueError:
        return  # Pillow does not read it either
    samples = width * height * _BANDS.get(magic, 1)
    check_limit(samples, MAX_SAMPLES, "samples in a PPM of text or of unusual depth")
    if text:
        check_limit(reader.size, MAX_TEXT, "MiB in a PPM of text", unit=2**20)
        starts = range(0, reader.size, _READ_SIZE)
        comments = sum(reader.read(start, min(_READ_SIZE, reader.size - start)).count(b"#") for start in starts)
        check_limit(comments, MAX_COMMENTS, "comments in a PPM of text")
