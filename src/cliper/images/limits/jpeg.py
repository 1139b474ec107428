"""Limits of JPEG files: what comes before the first scan, and how often the scans pass over the pixels."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from cliper.images.limits.directories import check_block
from cliper.images.limits.reader import MAX_METADATA, LimitExceededError, Reader

__all__ = ["MIN_SCAN_LIMIT", "SCAN_PASSES", "check_jpeg", "scan_cost"]

MAX_SEGMENTS = 4096  # before the first scan
MAX_PARTS = 64  # segments with EXIF, and segments with Photoshop's resources
MAX_TABLES = 2**16  # bytes of tables before the first scan
MAX_FILLING = 2**16  # bytes that belong to no segment
SCAN_PASSES = 16  # times that the scans of a file may pass over each of its samples ...
MIN_SCAN_LIMIT = 500_000_000  # ... or samples that they may pass over in any file
_SCAN_OVERHEAD = 2**14  # samples in whose time a scan's tables are built

_TEMPORARY, _SOS = 0x01, 0xDA
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_SEQUENTIAL = (0xC0, 0xC1, 0xC3, 0xC9, 0xCB)
_WITHOUT_LENGTH = (0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE))
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # neither an escaped 0xFF, nor filling, nor a restart


class _Segment(NamedTuple):
    marker: int
    offset: int  # of its data
    size: int


class _Frame(NamedTuple):
    marker: int
    components: int
    samples: dict[int, int]  # of each component


def check_jpeg(reader: Reader) -> None:
    """Check the metadata that is read with the header, and the number of scans.

    Raises:
        LimitExceededError: too many segments, too much metadata, or scans that pass over the pixels too often.
    """
    exif: list[bytes] = []
    resources = metadata = tables = 0
    for segments, segment in enumerate(_header_segments(reader), start=1):
        start = reader.read(segment.offset, min(segment.size, 14))
        if segment.marker < 0xE0:
            tables += segment.size
        else:
            metadata += segment.size
        if segment.marker == 0xE1 and start.startswith(b"Exif\0\0"):
            exif.append(reader.read(segment.offset, segment.size)[6:])
        elif segment.marker == 0xE2 and start.startswith(b"MPF\0"):
            check_block(reader.read(segment.offset, segment.size)[4:])
        resources += segment.marker == 0xED and start == b"Photoshop 3.0\0"
        for what, found, most in (
            ("JPEG segments in its header", segments, MAX_SEGMENTS),
            ("JPEG segments of EXIF", len(exif), MAX_PARTS),
            ("JPEG segments of Photoshop's resources", resources, MAX_PARTS),
            ("bytes of JPEG metadata", metadata, MAX_METADATA),
            ("bytes of JPEG tables in its header", tables, MAX_TABLES),
        ):
            if found > most:
                raise LimitExceededError(f"with at most {most:,} {what}", f"{found:,} or more")
    check_block(b"".join(exif))
    scan_cost(reader, 0, MIN_SCAN_LIMIT)


def scan_cost(reader: Reader, start: int, limit: int) -> int:
    """How many samples the scans of the JPEG at an offset pass over, and how many bytes had to be searched to know.

    Entropy-coded data is only searched for markers, and only where there may be a second scan.

    Args:
        limit: of this sum; raised to ``SCAN_PASSES`` times the samples of the frame.

    Raises:
        LimitExceededError: it is more.
    """
    frame, passed, scans, position = _Frame(0, 0, {}), 0, 0, start + 2
    try:
        while True:
            if passed + position - start > limit:
                raise LimitExceededError(
                    f"whose JPEG scans pass over its samples at most {SCAN_PASSES} times", f"{scans:,} scans or more"
                )
            position = reader.search(_MARKER, position)
            marker = reader.read(position + 1, 1)[0]
            if marker == _TEMPORARY:
                position += 2
                continue
            if marker in _WITHOUT_LENGTH or marker < 0xC0:
                break  # the end of the image, or what is no JPEG
            size = reader.unpack(">H", position + 2)[0]
            data, position = position + 4, position + 2 + size
            if marker in _FRAMES:
                frame = _frame(marker, reader.read(data, size - 2))
                limit = max(limit, SCAN_PASSES * sum(frame.samples.values()))
            elif marker == _SOS:
                count = reader.read(data, 1)[0]
                if not scans and frame.marker in _SEQUENTIAL and count == frame.components:
                    return sum(frame.samples.values())  # decoders end after this scan
                scans += 1
                components = reader.read(data + 1, 2 * count)[::2]
                passed += sum(frame.samples.get(component, 0) for component in components) + _SCAN_OVERHEAD
    except (EOFError, struct.error, IndexError):
        pass  # cut off or damaged
    return passed + position - start


def _frame(marker: int, data: bytes) -> _Frame:
    height, width, count = struct.unpack_from(">HHB", data, 1)
    parts = [(data[i], data[i + 1] >> 4, data[i + 1] & 15) for i in range(6, 6 + 3 * count, 3)]
    across, down = max(part[1] for part in parts) or 1, max(part[2] for part in parts) or 1
    samples: dict[int, int] = {}
    for component, x, y in parts:
        size = -(-width * x // across) * -(-height * y // down)
        samples[component] = max(size, samples.get(component, 0))
    return _Frame(marker, count, samples)


def _header_segments(reader: Reader) -> Iterator[_Segment]:
    """The segments before the first scan, as Pillow walks through them, which reads on where libjpeg stops."""
    position, filling = 2, 0
    while True:
        first, marker = reader.read(position, 2)
        if first != 0xFF or marker == 0xFF:
            position, filling = position + 1, filling + 1
        elif marker == 0x00 or marker in _WITHOUT_LENGTH:
            position, filling = position + 2, filling + 2
        elif marker < 0xC0 or marker == _SOS:
            return
        else:
            size = max(reader.unpack(">H", position + 2)[0] - 2, 0)
            yield _Segment(marker, position + 4, size)
            position += 4 + size
        if filling > MAX_FILLING:
            raise LimitExceededError(f"with at most {MAX_FILLING:,} bytes between its JPEG segments", "more")
