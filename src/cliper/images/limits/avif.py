"""Limits of AVIF files: the size and number of the AV1 frames that are decoded for the first image.

A file says in its boxes how large its image is; the AV1 streams within say it again, and may lie.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator

from cliper.images.limits.reader import LimitExceededError, Reader

__all__ = ["check_avif_frames", "without_exif"]

MAX_BOXES = 2**12
MAX_PARTS = 2**14
FRAME_PASSES = 8  # times the image's pixels that all frames together may have ...
MIN_FRAME_LIMIT = 2**24  # ... or pixels that they may have in any file
_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"meta")
_EXIF_ITEM = re.compile(rb"(infe[\x02\x03]...(?:..|....)..)Exif", re.DOTALL)
_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6


def without_exif(data: bytes) -> bytes:
    """The file without its EXIF items, which Pillow parses when it opens it.

    Nothing is lost: how an AVIF is turned is a property of its own, which takes precedence over EXIF.
    """
    return _EXIF_ITEM.sub(rb"\1free", data) if b"Exif" in data else data


def check_avif_frames(data: bytes, width: int, height: int) -> None:
    """Check the AV1 frames of all items and of the first sample of each track.

    Args:
        data: the file.
        width: of the image, as the file's boxes say.
        height: likewise.

    Raises:
        LimitExceededError: too many boxes, or frames that have far more pixels than the image.
    """
    reader = Reader(io.BytesIO(data))
    limit, pixels, left = max(FRAME_PASSES * width * height, MIN_FRAME_LIMIT), 0, 4 * len(data) + 2**20
    try:
        for parts in _streams(reader):
            inside = [(at, min(size, len(data) - at)) for at, size in parts if at < len(data)]
            left -= sum(size for _, size in inside)
            if left < 0:
                raise LimitExceededError("whose AVIF items do not overlap", "some that do")
            pixels += _frame_pixels(b"".join(data[at : at + size] for at, size in inside))
            if pixels > limit:
                raise LimitExceededError(
                    f"whose AV1 frames have at most {FRAME_PASSES} times its {width}x{height} pixels",
                    f"{pixels:,} pixels or more",
                )
    except (EOFError, struct.error):
        return  # damaged: the decoder says so


def _streams(reader: Reader) -> Iterator[list[tuple[int, int]]]:
    """Offsets and sizes of the parts of each item, and of the first sample of each track."""
    offsets: list[int] = []  # of the first sample of each track
    sizes: list[int] = []
    located: list[int] = []  # where the tables of the items begin
    data = 0  # where the data box of the items begins
    for kind, start, _ in _boxes(reader):
        if kind == b"idat":
            data = start
        elif kind in (b"stco", b"co64"):
            offsets += reader.unpack(">L" if kind == b"stco" else ">Q", start + 8)
        elif kind == b"stsz":
            fixed, count = reader.unpack(">LL", start + 4)
            sizes.append(fixed or (reader.unpack(">L", start + 12)[0] if count else 0))
        elif kind == b"iloc":
            located.append(start)
    for start in located:
        yield from _items(reader, start, data)
    for place in zip(offsets, sizes, strict=False):
        yield [place]


def _items(reader: Reader, start: int, data: int) -> Iterator[list[tuple[int, int]]]:
    """Offsets and sizes of the parts of each item in an item location box."""
    version, offset_length, base_index = (reader.read(at, 1)[0] for at in (start, start + 4, start + 5))
    position, count = start + 6, 0
    wide = 4 if version == 2 else 2

    def number(width: int) -> int:
        nonlocal position
        position += width
        return int.from_bytes(reader.read(position - width, width), "big")

    for _ in range(number(wide)):
        number(wide)
        method = number(2) & 15 if version else 0
        number(2)
        base = number(base_index >> 4) + (data if method == 1 else 0)
        parts = []
        for _ in range(number(2)):
            number(base_index & 15 if version else 0)
            parts.append((base + number(offset_length >> 4), number(offset_length & 15) or reader.size))
            count += 1
            if count > MAX_PARTS:
                raise LimitExceededError(f"with at most {MAX_PARTS:,} AVIF extents", "more")
        yield parts


def _boxes(reader: Reader) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of the content of each box, containers before what they contain."""
    stack = [(0, reader.size)]
    for _ in range(MAX_BOXES):
        while stack and stack[-1][0] + 8 > stack[-1][1]:
            stack.pop()
        if not stack:
            return
        start, limit = stack.pop()
        size, kind = reader.unpack(">L4s", start)
        head = 8
        if size == 1:
            size, head = reader.unpack(">Q", start + 8)[0], 16
        end = min(start + max(size, head), limit) if size else limit
        stack.append((end, limit))
        yield kind, start + head, end
        if kind in _CONTAINERS:
            stack.append((start + head + (4 if kind == b"meta" else 0), end))
    raise LimitExceededError(f"with at most {MAX_BOXES:,} AVIF boxes", "more")


def _frame_pixels(stream: bytes) -> int:
    """Pixels of all frames in an AV1 stream; 0 for what is none."""
    position = area = pixels = 0
    try:
        while position < len(stream):
            head = stream[position]
            kind, extended, sized = head >> 3 & 15, head >> 2 & 1, head >> 1 & 1
            position += 1 + extended
            size, position = _leb128(stream, position) if sized else (len(stream) - position, position)
            if head & 0x80:
                break
            if kind == _SEQUENCE_HEADER:
                area = max(area, _sequence_area(stream[position : position + min(size, 512)]))
            elif kind in (_FRAME_HEADER, _FRAME):
                pixels += area
            position += size
    except (IndexError, ValueError):
        pass  # damaged, or something else
    return pixels


def _leb128(data: bytes, position: int) -> tuple[int, int]:
    """A number in groups of 7 bits, and where it ends."""
    value = 0
    for index in range(8):
        byte = data[position + index]
        value |= (byte & 127) << (7 * index)
        if not byte & 128:
            return value, position + index + 1
    raise ValueError


class _Bits:
    """Numbers of so many bits each, from the front."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise IndexError
        return self._value >> self._left & ((1 << count) - 1)


def _sequence_area(data: bytes) -> int:
    """Greatest width times greatest height of a sequence's frames (AV1 specification, section 5.5)."""
    bits = _Bits(data)
    bits.take(4)  # profile, still picture
    if bits.take(1):  # reduced header
        bits.take(5)
    else:
        _skip_operating_points(bits)
    across, down = bits.take(4) + 1, bits.take(4) + 1
    return (bits.take(across) + 1) * (bits.take(down) + 1)


def _skip_operating_points(bits: _Bits) -> None:
    delay = 0
    if bits.take(1):  # timing
        bits.take(64)
        if bits.take(1):  # equal intervals: a number in unary-coded length
            zeros = 0
            while not bits.take(1):
                zeros += 1
            bits.take(zeros)
        if bits.take(1):  # decoder model
            delay = bits.take(5) + 1
            bits.take(42)
    displayed = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if delay and bits.take(1):
            bits.take(2 * delay + 1)
        if displayed and bits.take(1):
            bits.take(4)
