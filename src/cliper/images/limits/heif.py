"""Limits of HEIF files (HEIC): the pixels that are decoded for each item, and the sizes in HEVC streams.

The primary item of a phone's photo is a grid of coded tiles. A decoder decodes every tile that a grid names, as often
as it names it, so the pixels of a derived item are those of all that it refers to.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence

from cliper.images.limits.avif import FRAME_PASSES, MIN_FRAME_LIMIT, Extent, item_extents
from cliper.images.limits.boxes import walk_boxes
from cliper.images.limits.reader import CheckSize, Reader, check_limit

__all__ = ["check_heif", "coded_size"]

_SEQUENCE_PARAMETERS = 33  # type of a NAL unit
_MAX_UNIT_BYTES = 256  # of a unit that are read; the size is at its beginning
_UNIT_STEPS = 64  # of the check of a sequence parameter set
_DERIVED = (b"grid", b"iovl")
_MAX_DEPTH = 8  # of derived items of derived items, of which a decoder follows no circle


def check_heif(reader: Reader, check_size: CheckSize) -> None:
    """Check the sizes that boxes and HEVC streams name, and the pixels of all items that a derived item refers to."""
    kinds: dict[int, bytes] = {}
    references: dict[int, list[int]] = {}
    extents: dict[int, list[Extent]] = {}
    properties: list[int] = []  # areas of those that have one, in the order of their numbers
    used: dict[int, list[int]] = {}  # numbers of each item's properties
    container, item_data, tables = (0, 0), 0, []

    def area_of(width: int, height: int) -> int:
        check_size((max(width, 1), max(height, 1)))
        return width * height

    def area_of_unit(unit: bytes) -> int:
        width, height = coded_size(unit)
        reader.spend(_UNIT_STEPS if width else 0)
        return area_of(width, height)

    for kind, start, end in walk_boxes(reader):
        area = 0
        if kind == b"ispe":
            area = area_of(*reader.unpack(">LL", start + 4))
        elif kind == b"tkhd":
            area_of(*(side >> 16 for side in reader.unpack(">LL", end - 8)))
        elif kind == b"hvcC":
            units = [reader.read(at, min(size, _MAX_UNIT_BYTES)) for at, size in _parameter_sets(reader, start, end)]
            area = max(map(area_of_unit, units), default=0)
        elif kind == b"ipco":
            container = start, end
        elif kind == b"ipma":
            used.update(_associations(reader, start))
        elif kind == b"iinf":
            kinds.update(_item_kinds(reader, start, end))
        elif kind == b"iref":
            for source, targets in _references(reader, start, end):
                references.setdefault(source, []).extend(targets)
        elif kind == b"idat":
            item_data = start
        elif kind == b"iloc":
            tables.append(start)
        if container[0] <= start < container[1] and kind != b"ipco":
            properties.append(area)
    for start in tables:
        extents.update(item_extents(reader, start, item_data))
    areas: dict[int, int] = {}
    for item, kind in kinds.items():
        inside = [(at, min(size, reader.size - at)) for at, size in extents.get(item, ()) if at < reader.size]
        numbers = [number for number in used.get(item, ()) if 0 < number <= len(properties)]
        areas[item] = max((properties[number - 1] for number in numbers), default=0)
        if kind in _DERIVED:
            area_of(*_canvas(b"".join(reader.read(at, min(size, 32)) for at, size in inside), kind))
        elif kind in (b"hvc1", b"hev1"):
            sets = (unit for at, size in inside for unit in _units(reader, at, at + size))
            areas[item] = max([areas[item], *map(area_of_unit, sets)])
    limit = max(FRAME_PASSES * max(properties, default=0), MIN_FRAME_LIMIT)
    pixels: dict[int, int] = {}
    for item in kinds:
        check_limit(_pixels_of(item, areas, references, pixels, 0), limit, "pixels in its tiles")


def _pixels_of(
    item: int, areas: Mapping[int, int], references: Mapping[int, Sequence[int]], known: dict[int, int], depth: int
) -> int:
    """How many pixels are decoded for an item: its own, or those of all items that it is made of."""
    if item not in known:
        check_limit(depth, _MAX_DEPTH, "levels of items that are made of others")
        parts = [_pixels_of(one, areas, references, known, depth + 1) for one in references.get(item, ())]
        known[item] = sum(parts) if parts else areas.get(item, 0)
    return known[item]


def _item_kinds(reader: Reader, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Number and type of each item in the list of items."""
    position = start + (8 if reader.read(start, 1)[0] else 6)
    while position + 20 <= end:
        (size,) = reader.unpack(">L", position)
        wide = reader.read(position + 8, 1)[0] > 2
        item, _, kind = reader.unpack(">LH4s" if wide else ">HH4s", position + 12)
        yield item, kind
        position += max(size, 8)


def _references(reader: Reader, start: int, end: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Each derived item and the items that it is made of."""
    number = "L" if reader.read(start, 1)[0] else "H"
    position = start + 4
    while position + 8 <= end:
        size, kind = reader.unpack(">L4s", position)
        if kind == b"dimg":
            source, count = reader.unpack(f">{number}H", position + 8)
            at = position + 8 + struct.calcsize(f">{number}H")
            reader.spend(count)
            yield source, reader.unpack(f">{count}{number}", at)
        position += max(size, 8)


def _associations(reader: Reader, start: int) -> Iterator[tuple[int, list[int]]]:
    """The numbers of each item's properties, from 1."""
    version, flags = reader.unpack(">B2xB", start)
    position = start + 8
    for _ in range(reader.unpack(">L", start + 4)[0]):
        item, count = reader.unpack(">LB" if version else ">HB", position)
        position += 5 if version else 3
        numbers = reader.unpack(f">{count}{'H' if flags & 1 else 'B'}", position)
        position += count * (1 + (flags & 1))
        yield item, [number & (0x7FFF if flags & 1 else 0x7F) for number in numbers]


def _canvas(payload: bytes, kind: bytes) -> tuple[int, int]:
    """Width and height of a grid, or of an overlay, whose canvas comes after 8 bytes of colour."""
    start = 4 if kind == b"grid" else 10
    payload = payload.ljust(32, b"\0")
    width, height = struct.unpack_from(">LL" if payload[1] & 1 else ">HH", payload, start)
    return width, height


def _parameter_sets(reader: Reader, start: int, end: int) -> Iterator[Extent]:
    """The units in a decoder configuration."""
    position = start + 23
    for _ in range(reader.read(start + 22, 1)[0]):
        (count,) = reader.unpack(">H", position + 1)
        position += 3
        for _ in range(count):
            (size,) = reader.unpack(">H", position)
            yield position + 2, size
            position += 2 + size
            if position > end:
                return


def _units(reader: Reader, start: int, end: int) -> Iterator[bytes]:
    """The beginnings of the units of a coded image; each comes after its length."""
    while start + 4 <= end:
        (size,) = reader.unpack(">L", start)
        yield reader.read(start + 4, min(size, end - start - 4, _MAX_UNIT_BYTES))
        start += 4 + size


def coded_size(unit: bytes) -> tuple[int, int]:
    """Width and height in a sequence parameter set (HEVC, section 7.3.2.2); (0, 0) of another unit, or a damaged one.

    Example:
        >>> coded_size(b"\x40\x01")
        (0, 0)
    """
    if len(unit) < 2 or unit[0] >> 1 & 63 != _SEQUENCE_PARAMETERS:
        return 0, 0
    data = unit[2:].replace(b"\0\0\3", b"\0\0")  # without the bytes that prevent start codes
    bits, position = "".join(f"{byte:08b}" for byte in data), 0

    def take(count: int) -> int:
        nonlocal position
        position += count
        return int(bits[position - count : position], 2)

    def take_number() -> int:
        zeros = bits.index("1", position) - position
        return (take(zeros) if zeros else 0) + take(zeros + 1) - 1

    try:
        take(4)
        layers = take(3)
        take(1 + 88 + 8)  # nesting; profile and level
        flags = [(take(1), take(1)) for _ in range(layers)]
        if layers:
            take(2 * (8 - layers))
        for profile, level in flags:
            if count := 88 * profile + 8 * level:
                take(count)
        take_number()
        if take_number() == 3:  # three planes of one size
            take(1)
        return take_number(), take_number()
    except ValueError:
        return 0, 0
