"""Limits of JPEG 2000 files: tiles, code blocks, precincts and packets, which cost memory and time without any data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cliper.images.limits.reader import LimitExceededError, Reader

__all__ = ["check_jpeg2000"]

MAX_COMPONENTS = 4
MAX_TILES = 2**13
MAX_MARKERS = 2**16  # segments in the headers of the stream and of its tiles
MAX_BOXES = 2**10
MIN_BLOCK_LIMIT = 2**18  # code blocks and precincts of any image ...
_SAMPLES_A_BLOCK = 512  # ... or one for so many samples
MAX_PACKETS = 2**22
_MAX_LEVELS = 32
_SIZ, _COD, _COC, _SOT, _SOD = 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93


class _Sizes(NamedTuple):
    width: int
    height: int
    tile_width: int
    tile_height: int
    tiles: int
    components: int


def check_jpeg2000(reader: Reader) -> None:
    """Check the boxes of a file, the header of its stream and those of the tiles.

    Raises:
        LimitExceededError: too many boxes, segments, components, tiles, code blocks, precincts or packets, or two
            headers that differ.
    """
    start, size = 0, None
    if reader.read(0, 4) != b"\xff\x4f\xff\x51":
        start, size = _find_stream(reader)
    sizes = _sizes(reader, start + 4)
    if size is not None and size != (sizes.width, sizes.height):
        raise LimitExceededError("whose JPEG 2000 headers agree", "two of different sizes")
    layers = 1
    for marker, data, length in _segments(reader, start + 2):
        if marker == _COD:
            layers = max(layers, reader.unpack(">H", data + 2)[0])
            _check_coding(reader.read(data + 5, length - 5), reader.read(data, 1)[0], layers, sizes)
        elif marker == _COC:
            _check_coding(reader.read(data + 2, length - 2), reader.read(data + 1, 1)[0], layers, sizes)


def _find_stream(reader: Reader) -> tuple[int, tuple[int, int] | None]:
    """Offset of the code stream, and width and height by the file's header."""
    position, size = 12, None
    for _ in range(MAX_BOXES):
        length, kind = reader.unpack(">L4s", position)
        head = 8
        if length == 1:
            length, head = reader.unpack(">Q", position + 8)[0], 16
        if kind == b"jp2c":
            return position + head, size
        if kind in (b"jp2h", b"res "):
            length = head  # their boxes are looked at, too
        elif kind == b"ihdr":
            size = reader.unpack(">LL", position + head)[::-1]
        position += max(length, head)
    raise LimitExceededError(f"with at most {MAX_BOXES:,} JPEG 2000 boxes before its pixels", "more")


def _sizes(reader: Reader, offset: int) -> _Sizes:
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top, components = reader.unpack(
        ">8LH", offset + 4
    )
    if components > MAX_COMPONENTS:
        raise LimitExceededError(f"with at most {MAX_COMPONENTS} components", f"{components:,}")
    if not (tile_width and tile_height and right > left and bottom > top):
        raise EOFError
    tiles = -(-(right - tile_left) // tile_width) * -(-(bottom - tile_top) // tile_height)
    if tiles > MAX_TILES:
        raise LimitExceededError(f"with at most {MAX_TILES:,} JPEG 2000 tiles", f"{tiles:,}")
    width, height = right - left, bottom - top
    return _Sizes(width, height, min(tile_width, width), min(tile_height, height), tiles, components)


def _segments(reader: Reader, position: int) -> Iterator[tuple[int, int, int]]:
    """Marker, offset of the data and its length, of each segment of the main header and of the tiles' headers."""
    part = 0  # where the tile part ends
    for _ in range(MAX_MARKERS):
        (marker,) = reader.unpack(">H", position)
        if marker == _SOD:
            position = part
            continue
        if not 0xFF00 < marker < 0xFFD9:
            return
        (length,) = reader.unpack(">H", position + 2)
        if marker == _SOT:
            (size,) = reader.unpack(">L", position + 6)
            part = position + size if size else reader.size
        yield marker, position + 4, length - 2
        position += 2 + length
    raise LimitExceededError(f"with at most {MAX_MARKERS:,} JPEG 2000 segments in its headers", "more")


def _check_coding(data: bytes, style: int, layers: int, sizes: _Sizes) -> None:
    """Check the code blocks and precincts that a COD or COC segment makes of the whole image.

    Args:
        data: of the segment, from the number of decomposition levels on.
    """
    levels = min(data[0], _MAX_LEVELS)
    block = [(data[1] & 15) + 2, (data[2] & 15) + 2]
    precincts = blocks = 0
    for level in range(levels + 1):
        sides = [max(side >> (levels - level), 1) for side in (sizes.tile_width, sizes.tile_height)]
        exponents = [15, 15]
        if style & 1:
            exponents = [data[5 + level] & 15, data[5 + level] >> 4]
        inner = [min(block[i], max(exponents[i] - (level > 0), 0)) for i in (0, 1)]
        precincts += ((sides[0] >> exponents[0]) + 1) * ((sides[1] >> exponents[1]) + 1)
        blocks += ((sides[0] >> inner[0]) + 1) * ((sides[1] >> inner[1]) + 1)
    repeats = sizes.tiles * sizes.components
    limit = max(MIN_BLOCK_LIMIT, sizes.width * sizes.height * sizes.components // _SAMPLES_A_BLOCK)
    if (precincts + blocks) * repeats > limit:
        raise LimitExceededError(
            f"of at most {limit:,} JPEG 2000 code blocks and precincts", f"{(precincts + blocks) * repeats:,}"
        )
    if layers * precincts * repeats > MAX_PACKETS:
        raise LimitExceededError(f"of at most {MAX_PACKETS:,} JPEG 2000 packets", f"{layers * precincts * repeats:,}")
