"""Limits of TIFF files: their directories, and the layout of their pixels."""

from __future__ import annotations

from cliper.images.limits.directories import INTEGERS, Entry, TiffBlock, tiff_blocks
from cliper.images.limits.jpeg import MIN_SCAN_LIMIT, SCAN_PASSES, scan_cost
from cliper.images.limits.reader import CheckSize, LimitExceededError, Reader, check_limit

__all__ = ["check_tiff"]

MAX_TILES = 2**17  # tiles or strips
MAX_JPEG_TILES = 2**15  # those that are JPEGs of their own
_FREE_PADDING = 2**22  # pixels
_JPEG = 7  # compression
_OFFSETS = (273, 324)  # tags with the offsets of strips and of tiles
_UNSIGNED = {3: "H", 4: "L", 16: "Q"}


def check_tiff(reader: Reader, _: CheckSize) -> None:
    """Check the directories that are read for the first image of a file, and the layout of its pixels."""
    for block in tiff_blocks(reader):
        _check_pixels(block, block.check())


def _check_pixels(block: TiffBlock, entries: list[Entry]) -> None:
    numbers = {entry.tag: entry for entry in entries if entry.type in INTEGERS and entry.length}

    def number(tag: int, default: int) -> int:
        return block.value(numbers[tag]) if tag in numbers else default

    width, height = number(256, 0), number(257, 0)
    tile_width, tile_height = number(322, width), number(323, min(number(278, height), height))
    if not (width and height and tile_width and tile_height):
        return
    columns, rows = -(-width // tile_width), -(-height // tile_height)
    planes = number(277, 1) if number(284, 1) == 2 else 1
    stored = max((entry.length for entry in entries if entry.tag in _OFFSETS), default=0)
    jpeg = number(259, 1) == _JPEG
    check_limit(max(columns * rows * planes, stored), MAX_JPEG_TILES if jpeg else MAX_TILES, "strips or tiles")
    if columns * tile_width * rows * tile_height > 4 * width * height + _FREE_PADDING:
        raise LimitExceededError(
            "expected an image whose tiles have at most 4 times its pixels, got "
            f"{width}x{height} pixels in tiles of {tile_width}x{tile_height}"
        )
    if not jpeg:
        return
    limit = max(SCAN_PASSES * width * height * number(277, 1), MIN_SCAN_LIMIT)
    for entry in (numbers[tag] for tag in _OFFSETS if tag in numbers and numbers[tag].type in _UNSIGNED):
        for offset in block.reader.unpack(f"{block.order}{entry.length}{_UNSIGNED[entry.type]}", entry.offset):
            limit -= scan_cost(block.reader, offset, limit)
