"""Limits of AVIF files: the size and number of the AV1 frames that are decoded for the first image.

The boxes of a file give the size of its image; the AV1 streams in it give sizes of their own, which decoders follow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cliper.images.limits.boxes import walk_boxes
from cliper.images.limits.reader import CheckSize, Reader, check_limit

__all__ = ["FRAME_PASSES", "MIN_FRAME_LIMIT", "Extent", "check_avif", "item_extents", "without_exif"]

FRAME_PASSES = 8  # times the pixels of the image that all frames together may have ...
MIN_FRAME_LIMIT = 2**24  # ... or pixels that they may have in any file
_EXIF_ITEM = re.compile(rb"(infe[\x02\x03]...(?:..|....)..)Exif", re.DOTALL)
_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6
_SEQUENCE_STEPS = 64  # of the check of a sequence header, which may have hundreds of numbers

Extent = tuple[int, int]  # offset and size


def without_exif(data: bytes) -> bytes:
    """The file without its EXIF items, which Pillow would parse when it opens the file.

    The orientation of an AVIF is a property of its own, which takes precedence over EXIF.
    """
    return _EXIF_ITEM.sub(rb"\1free", data) if b"Exif" in data else data


def check_avif(reader: Reader, check_size: CheckSize) -> None:
    """Check the AV1 frames of all items and of the first sample of each track."""
    area = 0
    offsets: list[int] = []  # of the first sample of each track
    sizes: list[int] = []
    locations: list[int] = []  # of the tables of items
    item_data = 0  # start of the box that holds data of items
    for kind, start, end in walk_boxes(reader):
        if kind in (b"ispe", b"tkhd"):
            width, height = reader.unpack(">LL", start + 4 if kind == b"ispe" else end - 8)
            if kind == b"tkhd":
                width, height = width >> 16, height >> 16
            check_size((max(width, 1), max(height, 1)))
            area = max(area, width * height)
        elif kind == b"idat":
            item_data = start
        elif kind == b"iloc":
            locations.append(start)
        elif kind in (b"stco", b"co64"):
            offsets += reader.unpack(">L" if kind == b"stco" else ">Q", start + 8)
        elif kind == b"stsz":
            fixed, count = reader.unpack(">LL", start + 4)
            sizes.append(fixed or (reader.unpack(">L", start + 12)[0] if count else 0))
    streams = [extents for start in locations for _, extents in item_extents(reader, start, item_data)]
    streams += [[sample] for sample in zip(offsets, sizes, strict=False)]
    limit, pixels = max(FRAME_PASSES * area, MIN_FRAME_LIMIT), 0
    for extents in streams:
        inside = [(at, min(size, reader.size - at)) for at, size in extents if at < reader.size]
        pixels += _frame_pixels(reader, b"".join(reader.read(at, size) for at, size in inside))
        check_limit(pixels, limit, "pixels in its AV1 frames")


def item_extents(reader: Reader, start: int, item_data: int) -> Iterator[tuple[int, list[Extent]]]:
    """Number and extents of each item in an item location box."""
    version, lengths, base_index = (reader.read(at, 1)[0] for at in (start, start + 4, start + 5))
    position = start + 6

    def number(width: int) -> int:
        nonlocal position
        position += width
        return int.from_bytes(reader.read(position - width, width), "big")

    wide = 4 if version == 2 else 2
    for _ in range(number(wide)):
        item = number(wide)
        method = number(2) & 15 if version else 0
        number(2)
        base = number(base_index >> 4) + (item_data if method == 1 else 0)
        extents = []
        for _ in range(number(2)):
            number(base_index & 15 if version else 0)
            extents.append((base + number(lengths >> 4), number(lengths & 15) or reader.size))
        yield item, extents


def _frame_pixels(reader: Reader, stream: bytes) -> int:
    """Pixels of all frames in an AV1 stream; 0 for other data."""
    position = area = pixels = 0
    try:
        while position < len(stream):
            reader.spend(1)
            header = stream[position]
            kind, extended, sized = header >> 3 & 15, header >> 2 & 1, header >> 1 & 1
            position += 1 + extended
            if header & 0x80:
                break
            size = 0 if sized else len(stream) - position
            for shift in range(0, 56, 7) if sized else ():
                byte = stream[position]
                position += 1
                size |= (byte & 127) << shift
                if byte < 128:
                    break
            if kind == _SEQUENCE_HEADER:
                reader.spend(_SEQUENCE_STEPS)
                area = max(area, _sequence_area(stream[position : position + min(size, 512)]))
            elif kind in (_FRAME_HEADER, _FRAME):
                pixels += area
            position += size
    except IndexError:
        pass  # damaged, or other data
    return pixels


def _sequence_area(data: bytes) -> int:
    """Greatest width times greatest height of a sequence's frames (AV1 specification, section 5.5)."""
    value, left = int.from_bytes(data, "big"), 8 * len(data)

    def take(count: int) -> int:
        nonlocal left
        left -= count
        if left < 0:
            raise IndexError
        return value >> left & ((1 << count) - 1)

    take(4)  # profile, still image
    if take(1):  # reduced header
        take(5)
    else:
        delay = 0
        if take(1):  # timing
            take(64)
            if take(1):  # equal intervals: a number whose length is coded in unary
                zeros = 0
                while zeros < 32 and not take(1):
                    zeros += 1
                take(zeros % 32)  # decoders read no number after 32 zeros
            if take(1):  # decoder model
                delay = take(5) + 1
                take(42)
        displayed = take(1)
        for _ in range(take(5) + 1):  # operating points
            take(12)
            if take(5) > 7:
                take(1)
            if delay and take(1):
                take(2 * delay + 1)
            if displayed and take(1):
                take(4)
    width_bits, height_bits = take(4) + 1, take(4) + 1
    return (take(width_bits) + 1) * (take(height_bits) + 1)
