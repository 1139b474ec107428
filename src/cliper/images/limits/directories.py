"""Limits of TIFF directories: of TIFF files, of EXIF blocks and of the tables of phones' further images (MPF)."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import NamedTuple

from cliper.images.limits.reader import MAX_METADATA, LimitExceededError, Reader, mebibytes

__all__ = ["INTEGERS", "Entry", "Header", "check_block", "check_directories", "exif_orientation", "headers", "value_of"]

MAX_ENTRIES = 4096  # of one directory
MAX_VALUES = 2**20  # numbers in the tags of a file, a fraction counted as 16: Python objects
MAX_NAMES = 16  # times that an EXIF block may begin with its name
_MAX_DIRECTORIES = 8
_NAME = b"Exif\0\0"

# Type -> bytes of a value, and what a value counts in MAX_VALUES.
_TYPES = {
    **dict.fromkeys((1, 2, 7), (1, 0)),  # bytes and text
    6: (1, 1),
    **dict.fromkeys((3, 8), (2, 1)),
    **dict.fromkeys((4, 9, 11, 13), (4, 1)),
    **dict.fromkeys((12, 16, 17, 18), (8, 1)),
    **dict.fromkeys((5, 10), (8, 16)),
}
INTEGERS = (3, 4, 6, 8, 9, 13, 16, 17, 18)
_POINTERS = (34665, 34853, 40965)  # to the directories of EXIF, GPS and interoperability
_ORIENTATION = 274


class Header(NamedTuple):
    """The first bytes of a TIFF block."""

    order: str  # of bytes, as in ``struct``
    big: bool  # a BigTIFF
    first: int  # offset of the first directory


class Entry(NamedTuple):
    """An entry of a directory: a tag and where its values are."""

    tag: int
    type: int
    values: int  # how many
    offset: int  # of the first


def check_block(block: bytes) -> None:
    """Check the directories of an EXIF or MPF block.

    Raises:
        LimitExceededError: too many entries, bytes or numbers.
    """
    try:
        reader = _opened(block)
        for header in headers(reader):
            check_directories(reader, header)
    except (EOFError, struct.error):
        return


def exif_orientation(block: bytes) -> int | None:
    """The orientation in the first directory of an EXIF block; None if it has none. Nothing else is read."""
    found = None
    try:
        reader = _opened(block)
        for header in headers(reader):
            for entry in _entries(reader, header, header.first):
                if entry.tag == _ORIENTATION and entry.type in INTEGERS and entry.values:
                    found = value_of(reader, header, entry)
    except (EOFError, LimitExceededError, struct.error):
        pass
    return found


def _opened(block: bytes) -> Reader:
    """A reader of the block behind its name, which may be there several times; Pillow copies the block for each."""
    start = 0
    while block.startswith(_NAME, start):
        start += len(_NAME)
    if start > MAX_NAMES * len(_NAME):
        raise LimitExceededError(f"with at most {MAX_NAMES} times the name of its EXIF", "more")
    return Reader(io.BytesIO(block[start:]))


def headers(reader: Reader) -> Iterator[Header]:
    """The header, in each way in which Pillow or libtiff reads it."""
    magic = reader.read(0, 4)
    if magic[:2] not in (b"II", b"MM"):
        return
    order = "<" if magic[:2] == b"II" else ">"
    if 43 in magic[2:]:
        yield Header(order, True, reader.unpack(order + "Q", 8)[0])
    if magic[2] != 43:  # Pillow 12 takes a big-endian BigTIFF for a TIFF
        yield Header(order, False, reader.unpack(order + "L", 4)[0])


def check_directories(reader: Reader, header: Header) -> list[Entry]:
    """Check the first directory and those that it points at.

    Returns:
        The entries of the first directory whose values are within the file.

    Raises:
        LimitExceededError: too many entries, bytes or numbers.
    """
    first: list[Entry] = []
    size = values = 0
    offsets = [header.first]
    for offset in offsets:  # grows on the way
        try:
            entries = _entries(reader, header, offset)
        except EOFError:
            continue
        for entry in entries:
            each, cost = _TYPES.get(entry.type, (0, 0))
            if entry.offset + entry.values * each > reader.size:
                continue  # no decoder reads it
            if offset == header.first:
                first.append(entry)
            size += entry.values * each
            values += entry.values * cost
            if entry.tag in _POINTERS and entry.type in INTEGERS and entry.values:
                pointer = value_of(reader, header, entry)
                if pointer not in offsets and len(offsets) < _MAX_DIRECTORIES:
                    offsets.append(pointer)
    limit = max(MAX_METADATA, reader.size)  # layers in a TIFF of Photoshop are a tag; only what is shared can be more
    if size > limit:
        raise LimitExceededError(f"with at most {mebibytes(limit)} of tags", mebibytes(size))
    if values > MAX_VALUES:
        raise LimitExceededError(f"with at most {MAX_VALUES:,} numbers in its tags", f"{values:,}")
    return first


def value_of(reader: Reader, header: Header, entry: Entry) -> int:
    """The first number of an entry of integers."""
    data = reader.read(entry.offset, _TYPES[entry.type][0])
    return int.from_bytes(data, "little" if header.order == "<" else "big")


def _entries(reader: Reader, header: Header, offset: int) -> list[Entry]:
    order, size = header.order, 20 if header.big else 12
    (count,) = reader.unpack(order + ("Q" if header.big else "H"), offset)
    offset += 8 if header.big else 2
    if count > MAX_ENTRIES:
        raise LimitExceededError(f"with at most {MAX_ENTRIES:,} tags in a directory", f"{count:,}")
    count = min(count, max(reader.size - offset, 0) // size)  # what is there of a directory that is cut off
    data = reader.read(offset, count * size)
    found = []
    layout = order + ("HHQQ" if header.big else "HHLL")
    for index, (tag, type, values, pointer) in enumerate(struct.iter_unpack(layout, data)):
        inline = values * _TYPES.get(type, (0, 0))[0] <= (8 if header.big else 4)
        position = offset + index * size + (12 if header.big else 8)
        found.append(Entry(tag, type, values, position if inline else pointer))
    return found
