"""Limits of JPEG 2000 files: tiles, code blocks, precincts and packets, which cost memory and time without any data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from cliper.images.limits.boxes import walk_boxes
from cliper.images.limits.reader import CheckSize, LimitExceededError, Reader, check_limit

__all__ = ["check_jpeg2000"]

MAX_COMPONENTS = 4
MAX_TILES = 2**13
MAX_SEGMENTS = 2**16  # in the headers of the stream and of its tiles
MIN_BLOCK_LIMIT = 2**18  # code blocks and precincts of any image ...
_SAMPLES_PER_BLOCK = 512  # ... or one for so many samples
MAX_PACKETS = 2**22
_MAX_LEVELS = 32
_SIZ, _COD, _COC, _SOT, _SOD = 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93


class _Sizes(NamedTuple):
    image: tuple[int, int]
    tile: tuple[int, int]
    components: int
    tiles: int


def check_jpeg2000(reader: Reader, _: CheckSize) -> None:
    """Check the boxes of a file, the header of its stream and those of the tiles."""
    start, size = 0, None
    if reader.read(0, 4) != b"\xff\x4f\xff\x51":
        for kind, content, _end in walk_boxes(reader, "JPEG 2000"):
            if kind == b"ihdr":
                size = reader.unpack(">LL", content)[::-1]
            elif kind == b"jp2c":
                start = content
                break
        else:
            return  # damaged: there is no stream
    sizes = _read_sizes(reader, start + 4)
    if size is not None and size != sizes.image:
        raise LimitExceededError("expected an image whose JPEG 2000 headers agree, got two of different sizes")
    layers = 1
    for marker, data, length in _segments(reader, start + 2):
        if marker == _COD:
            layers = max(layers, reader.unpack(">H", data + 2)[0])
            _check_coding(reader.read(data + 5, length - 5), reader.read(data, 1)[0], layers, sizes)
        elif marker == _COC:
            _check_coding(reader.read(data + 2, length - 2), reader.read(data + 1, 1)[0], layers, sizes)


def _read_sizes(reader: Reader, offset: int) -> _Sizes:
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top, components = reader.unpack(
        ">8LH", offset + 4
    )
    check_limit(components, MAX_COMPONENTS, "components")
    if not (tile_width and tile_height and right > left and bottom > top):
        raise EOFError
    tiles = -(-(right - tile_left) // tile_width) * -(-(bottom - tile_top) // tile_height)
    check_limit(tiles, MAX_TILES, "JPEG 2000 tiles")
    width, height = right - left, bottom - top
    return _Sizes((width, height), (min(tile_width, width), min(tile_height, height)), components, tiles)


def _segments(reader: Reader, position: int) -> Iterator[tuple[int, int, int]]:
    """Marker, offset of the data and its length, of each segment of the main header and of the tiles' headers."""
    tile_end = count = 0
    while True:
        check_limit(count := count + 1, MAX_SEGMENTS, "JPEG 2000 segments in its headers")
        (marker,) = reader.unpack(">H", position)
        if marker == _SOD:
            position = tile_end
            continue
        if not 0xFF00 < marker < 0xFFD9:
            return
        (length,) = reader.unpack(">H", position + 2)
        if marker == _SOT:
            (size,) = reader.unpack(">L", position + 6)
            tile_end = position + size if size else reader.size
        yield marker, position + 4, length - 2
        position += 2 + length


def _check_coding(data: bytes, style: int, layers: int, sizes: _Sizes) -> None:
    """Check the code blocks and precincts that a COD or COC segment (from the number of levels on) makes of the image.

    The lowest bit of ``style`` says that the segment gives the sizes of the precincts.
    """
    levels = min(data[0], _MAX_LEVELS)
    precincts = blocks = 0
    for level in range(levels + 1):
        width, height = (max(side >> (levels - level), 1) for side in sizes.tile)
        across, down = (data[5 + level] & 15, data[5 + level] >> 4) if style & 1 else (15, 15)
        precincts += ((width >> across) + 1) * ((height >> down) + 1)
        block_across = min((data[1] & 15) + 2, max(across - (level > 0), 0))
        block_down = min((data[2] & 15) + 2, max(down - (level > 0), 0))
        blocks += ((width >> block_across) + 1) * ((height >> block_down) + 1)
    repeats = sizes.tiles * sizes.components
    limit = max(MIN_BLOCK_LIMIT, math.prod(sizes.image) * sizes.components // _SAMPLES_PER_BLOCK)
    check_limit((precincts + blocks) * repeats, limit, "JPEG 2000 code blocks and precincts")
    check_limit(layers * precincts * repeats, MAX_PACKETS, "JPEG 2000 packets")
