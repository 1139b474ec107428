"""Limits of TIFF files: their directories, and how their pixels are stored."""

from __future__ import annotations

from cliper.images.limits.directories import INTEGERS, Entry, Header, check_directories, headers, value_of
from cliper.images.limits.jpeg import MIN_SCAN_LIMIT, SCAN_PASSES, scan_cost
from cliper.images.limits.reader import LimitExceededError, Reader

__all__ = ["check_tiff"]

MAX_TILES = 2**17  # tiles or strips
MAX_JPEG_TILES = 2**15  # those that are JPEGs of their own
_FREE_PADDING = 2**22  # pixels
_JPEG = 7  # compression


def check_tiff(reader: Reader) -> None:
    """Check the directories that are read for the first image of a file, and how its pixels are stored.

    Raises:
        LimitExceededError: too many entries, bytes or numbers in tags, too many or too large tiles, or JPEG tiles with
            too many scans.
    """
    for header in headers(reader):
        _check_pixels(reader, header, check_directories(reader, header))


def _check_pixels(reader: Reader, header: Header, entries: list[Entry]) -> None:
    numbers = {entry.tag: entry for entry in entries if entry.type in INTEGERS and entry.values}

    def number(tag: int, default: int) -> int:
        return value_of(reader, header, numbers[tag]) if tag in numbers else default

    stored = max((entry.values for entry in entries if entry.tag in (273, 324)), default=0)
    width, height = number(256, 0), number(257, 0)
    tile_width, tile_height = number(322, width), number(323, min(number(278, height), height))
    if not (width and height and tile_width and tile_height):
        return
    columns, rows = -(-width // tile_width), -(-height // tile_height)
    planes = number(277, 1) if number(284, 1) == 2 else 1
    tiles = max(columns * rows * planes, stored)
    limit = MAX_JPEG_TILES if number(259, 1) == _JPEG else MAX_TILES
    if tiles > limit:
        raise LimitExceededError(f"with at most {limit:,} strips or tiles", f"{tiles:,}")
    padded = columns * tile_width * rows * tile_height
    if padded > 4 * width * height + _FREE_PADDING:
        raise LimitExceededError(
            "whose tiles have at most 4 times its pixels",
            f"{width}x{height} pixels in tiles of {tile_width}x{tile_height}",
        )
    if number(259, 1) == _JPEG:
        samples = width * height * number(277, 1)
        _check_jpeg_tiles(reader, header, numbers, max(SCAN_PASSES * samples, MIN_SCAN_LIMIT))


def _check_jpeg_tiles(reader: Reader, header: Header, numbers: dict[int, Entry], limit: int) -> None:
    unsigned = {3: "H", 4: "L", 16: "Q"}
    for tag in (273, 324):
        entry = numbers.get(tag)
        if entry is None or entry.type not in unsigned:
            continue
        for offset in reader.unpack(f"{header.order}{entry.values}{unsigned[entry.type]}", entry.offset):
            limit -= scan_cost(reader, offset, limit)
