"""Limits of TIFF files: their directories, and the layout of their pixels."""

from __future__ import annotations

from cliper.images.limits.directories import INTEGERS, Entry, TiffBlock, tiff_blocks
from cliper.images.limits.jpeg import MIN_SCAN_LIMIT, SCAN_PASSES, scan_cost
from cliper.images.limits.reader import CheckSize, LimitExceededError, Reader, check_limit

__all__ = ["check_tiff"]

MAX_TILES = 2**17  # tiles or strips
_FREE_PADDING = 2**22  # pixels
_JPEG = 7  # compression
_STRIP_OFFSETS, _TILE_OFFSETS = 273, 324
_BYTE = 1  # a type of numbers for libtiff, too


def check_tiff(reader: Reader, _: CheckSize) -> None:
    """Check the directories that are read for the first image of a file, and the layout of its pixels."""
    for block in tiff_blocks(reader):
        _check_pixels(block, block.check())


def _check_pixels(block: TiffBlock, entries: list[Entry]) -> None:
    if len({entry.tag for entry in entries}) < len(entries):  # libtiff takes the first of them, Pillow the last
        raise LimitExceededError("expected an image whose TIFF directory has each tag once, got a tag twice")
    entries = [entry for entry in entries if block.contains(entry)]
    numbers = {entry.tag: entry for entry in entries if entry.type in (_BYTE, *INTEGERS) and entry.length}

    def number(tag: int, default: int) -> int:
        return block.value(numbers[tag]) if tag in numbers else default

    width, height = number(256, 0), number(257, 0)
    if not (width and height):
        return
    tile_width, tile_height = number(322, 0) or width, number(323, 0) or height
    columns, rows = -(-width // tile_width), -(-height // tile_height)
    strips = -(-height // (number(278, 0) or height))
    planes = number(277, 1) if number(284, 1) == 2 else 1
    for tag, count in ((_STRIP_OFFSETS, strips), (_TILE_OFFSETS, columns * rows)):
        stored = max((entry.length for entry in entries if entry.tag == tag), default=0)
        check_limit(count * planes, MAX_TILES, "strips or tiles")
        check_limit(stored, count * planes, "offset(s) of strips or tiles")  # Pillow decodes at each of them
    if columns * tile_width * rows * tile_height > 4 * width * height + _FREE_PADDING:
        raise LimitExceededError(
            "expected an image whose tiles have at most 4 times its pixels, got "
            f"{width}x{height} pixels in tiles of {tile_width}x{tile_height}"
        )
    if number(259, 1) != _JPEG:
        return
    limit = max(SCAN_PASSES * width * height * number(277, 1), MIN_SCAN_LIMIT)
    for entry in (numbers[tag] for tag in (_STRIP_OFFSETS, _TILE_OFFSETS) if tag in numbers):
        for offset in block.values(entry, entry.length):
            limit -= scan_cost(block.reader, offset, limit)
