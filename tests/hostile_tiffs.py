"""TIFF files and EXIF blocks that cost a plain decoder gigabytes or minutes; see :mod:`hostile_images`."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

BYTE, SHORT, LONG, RATIONAL, UNDEFINED, SLONG = 1, 3, 4, 5, 7, 9
_UNIT = {BYTE: 1, SHORT: 2, LONG: 4, RATIONAL: 8, UNDEFINED: 1}
_DATA = 8  # where the data of a TIFF block starts: behind its header
_MEGABYTE = 1_000_000

Entry = tuple[int, int, int, int]  # tag, type, number of values, value or offset


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


def tiff_tile(side: int = 20_000, extra: Iterable[Entry] = ()) -> bytes:
    """One pixel in a deflated tile of 400 megapixels."""
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(bytes(side)) for _ in range(side)) + packer.flush()
    tags = {"t273": None, "t278": None, "t279": None, "t259": (SHORT, 1, 8)}
    tags |= {"t322": (LONG, 1, side), "t323": (LONG, 1, side), "t324": (LONG, 1, 8), "t325": (LONG, 1, len(data))}
    return tiff(extra, data, **tags)


def tiff_tile_twice(side: int = 20_000) -> bytes:
    """The same, with a second, small size of tiles, which libtiff ignores."""
    return tiff_tile(side, [(322, LONG, 1, 16), (323, LONG, 1, 16)])


def tiff_repeated(side: int = 1008, offsets: int = 131_000, *, tiles: bool = False) -> bytes:
    """Two strips or tiles with many more offsets, for each of which Pillow decodes one again."""
    data = bytes(side * side) + struct.pack("<L", 8) * offsets
    numbers, rows = (LONG, offsets, 8 + side * side), (LONG, 1, side - 8)
    tags = {"t278": rows, "t273": numbers, "t279": numbers}
    if tiles:
        tags = {"t322": (LONG, 1, side), "t323": rows, "t324": numbers, "t325": numbers}
        tags |= dict.fromkeys(("t273", "t278", "t279"))
    return tiff(data=data, t256=(LONG, 1, side), t257=(LONG, 1, side), **tags)


def tiff_markers(strips: int = 1000, markers: int = 250_000) -> bytes:
    """JPEG strips that share markers without data."""
    data = b"\xff\xd8" + b"\xff\x01" * markers
    data += bytes(-len(data) % 4)
    offsets = (LONG, strips, 8 + len(data))
    size = {"t256": (LONG, 1, 8), "t257": (LONG, 1, 8 * strips), "t278": (LONG, 1, 8), "t259": (SHORT, 1, 7)}
    return tiff(data=data + struct.pack("<L", 8) * strips, t273=offsets, t279=offsets, **size)
