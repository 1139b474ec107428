"""Limits of TIFF directories: in TIFF files, in EXIF blocks and in the tables of phones' further images (MPF)."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from cliper.images.limits.reader import MAX_METADATA, LimitExceededError, Reader, check_limit

__all__ = ["INTEGERS", "Entry", "TiffBlock", "check_block", "exif_orientation", "tiff_blocks"]

MAX_ENTRIES = 4096  # of one directory
MAX_VALUES = 2**20  # numbers in the tags of a file, a fraction counted as 16: Python objects
MAX_NAMES = 16  # times that an EXIF block may begin with its name; Pillow copies the block for each
_MAX_DIRECTORIES = 8
_NAMES = re.compile(rb"(?:Exif\0\0)*")

# Bytes of a value of each type, from 0 on; 0 for unknown types.
_SIZES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)
_TEXT, _FRACTIONS = (1, 2, 7), (5, 10)
INTEGERS = (3, 4, 6, 8, 9, 13, 16, 17, 18)
_POINTERS = (34665, 34853, 40965)  # to the directories of EXIF, GPS and interoperability
_ORIENTATION = 274


class Entry(NamedTuple):
    """An entry of a directory: a tag and the place of its values."""

    tag: int
    type: int
    length: int  # number of values
    offset: int  # of the first value


class TiffBlock(NamedTuple):
    """A TIFF structure: its reader and header."""

    reader: Reader
    order: str  # of bytes, in the notation of ``struct``
    big: bool  # a BigTIFF
    first: int  # offset of the first directory

    def value(self, entry: Entry) -> int:
        """The first number of an entry of integers."""
        data = self.reader.read(entry.offset, _value_size(entry.type))
        return int.from_bytes(data, "little" if self.order == "<" else "big")

    def entries(self, offset: int) -> list[Entry]:
        """The entries of the directory at an offset, and of one that is cut off those within the file."""
        size, inline_size = (20, 8) if self.big else (12, 4)
        (count,) = self.reader.unpack(self.order + ("Q" if self.big else "H"), offset)
        offset += 8 if self.big else 2
        check_limit(count, MAX_ENTRIES, "tags in a directory")
        data = self.reader.read(offset, min(count, max(self.reader.size - offset, 0) // size) * size)
        entries = []
        layout = self.order + ("HHQQ" if self.big else "HHLL")
        for index, (tag, type, values, pointer) in enumerate(struct.iter_unpack(layout, data), start=1):
            inline = values * _value_size(type) <= inline_size
            entries.append(Entry(tag, type, values, offset + index * size - inline_size if inline else pointer))
        return entries

    def check(self) -> list[Entry]:
        """Check the first directory and those that it points at.

        Returns:
            The entries of the first directory whose values are within the file.

        Raises:
            LimitExceededError: too many entries, bytes or numbers.
        """
        first: list[Entry] = []
        size = values = 0
        offsets = [self.first]
        for offset in offsets:  # grows in the loop
            try:
                entries = self.entries(offset)
            except EOFError:
                continue
            for entry in entries:
                bytes_of_values = entry.length * _value_size(entry.type)
                if entry.offset + bytes_of_values > self.reader.size:
                    continue  # no decoder reads it
                if offset == self.first:
                    first.append(entry)
                size += bytes_of_values
                if bytes_of_values and entry.type not in _TEXT:
                    values += entry.length * (16 if entry.type in _FRACTIONS else 1)
                if entry.tag in _POINTERS and entry.type in INTEGERS and entry.length:
                    pointer = self.value(entry)
                    if pointer not in offsets and len(offsets) < _MAX_DIRECTORIES:
                        offsets.append(pointer)
        # A tag may be as large as the file (layers of Photoshop); only tags that share their data exceed it.
        check_limit(size, max(MAX_METADATA, self.reader.size), "MiB of tags", unit=2**20)
        check_limit(values, MAX_VALUES, "numbers in its tags")
        return first


def tiff_blocks(reader: Reader) -> Iterator[TiffBlock]:
    """The structure in each way in which Pillow or libtiff reads its header."""
    magic = reader.read(0, 4)
    if magic[:2] not in (b"II", b"MM"):
        return
    order = "<" if magic[:2] == b"II" else ">"
    if 43 in magic[2:]:
        yield TiffBlock(reader, order, True, reader.unpack(order + "Q", 8)[0])
    if magic[2] != 43:  # Pillow 12 takes a big-endian BigTIFF for a TIFF
        yield TiffBlock(reader, order, False, reader.unpack(order + "L", 4)[0])


def check_block(block: bytes) -> None:
    """Check the directories of an EXIF or MPF block; nothing is said of a damaged one.

    Raises:
        LimitExceededError: too many entries, bytes or numbers.
    """
    try:
        for tiff in tiff_blocks(_exif_reader(block)):
            tiff.check()
    except (EOFError, struct.error):
        pass


def exif_orientation(block: bytes) -> int | None:
    """The orientation in the first directory of an EXIF block; None if it has none. Nothing else is read."""
    orientation = None
    try:
        for tiff in tiff_blocks(_exif_reader(block)):
            for entry in tiff.entries(tiff.first):
                if entry.tag == _ORIENTATION and entry.type in INTEGERS and entry.length:
                    orientation = tiff.value(entry)
    except (EOFError, LimitExceededError, struct.error):
        pass
    return orientation


def _value_size(type: int) -> int:
    return _SIZES[type] if type < len(_SIZES) else 0


def _exif_reader(block: bytes) -> Reader:
    """A reader of the block after its name."""
    match = _NAMES.match(block)
    start = match.end() if match else 0
    check_limit(start // 6, MAX_NAMES, "times the name of its EXIF")
    return Reader(io.BytesIO(block[start:]))
