"""Limits of JPEG files: the segments before the first scan, and the number of passes of the scans over the pixels."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from cliper.images.limits.directories import check_block
from cliper.images.limits.reader import MAX_METADATA, CheckSize, Reader, check_limit

__all__ = ["MIN_SCAN_LIMIT", "SCAN_PASSES", "check_jpeg", "scan_cost"]

MAX_SEGMENTS = 4096  # before the first scan
MAX_PARTS = 64  # segments with EXIF, and segments with Photoshop's resources; Pillow copies those before for each
MAX_TABLES = 2**16  # bytes of tables before the first scan
MAX_FILLING = 2**16  # bytes outside of segments before the first scan, which Pillow reads one at a time
SCAN_PASSES = 16  # times that the scans of a file may pass over each of its samples ...
MIN_SCAN_LIMIT = 500_000_000  # ... or samples that they may pass over in any file
_SCAN_OVERHEAD = 2**14  # samples that take as long as building the tables of a scan

_TEMPORARY, _SOS = 0x01, 0xDA
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_SEQUENTIAL = (0xC0, 0xC1, 0xC3, 0xC9, 0xCB)
_WITHOUT_LENGTH = (*range(0xC0), 0xC8, 0xD8, 0xD9, *range(0xF0, 0xFE))
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # not an escaped 0xFF, filling or a restart marker


def check_jpeg(reader: Reader, _: CheckSize) -> None:
    """Check the metadata that is read with the header, and the number of scans."""
    exif: list[bytes] = []
    end = 2
    resources = metadata = tables = filling = 0
    for count, (marker, start, offset, size) in enumerate(_segments(reader, 2), start=1):
        filling, end = filling + start - end, offset + size
        check_limit(filling, MAX_FILLING, "bytes between its JPEG segments")
        if marker == _SOS:
            break
        tables += size if marker < 0xE0 else 0
        metadata += size if marker >= 0xE0 else 0
        name = reader.read(offset, min(size, 14))
        if marker == 0xE1 and name.startswith(b"Exif\0\0"):
            exif.append(reader.read(offset, size)[6:])
        elif marker == 0xE2 and name.startswith(b"MPF\0"):
            check_block(reader.read(offset, size)[4:])
        resources += marker == 0xED and name == b"Photoshop 3.0\0"
        check_limit(count, MAX_SEGMENTS, "JPEG segments in its header")
        check_limit(len(exif), MAX_PARTS, "JPEG segments of EXIF")
        check_limit(resources, MAX_PARTS, "JPEG segments of Photoshop's resources")
        check_limit(metadata, MAX_METADATA, "bytes of JPEG metadata")
        check_limit(tables, MAX_TABLES, "bytes of JPEG tables in its header")
    check_block(b"".join(exif))
    scan_cost(reader, 0, MIN_SCAN_LIMIT)


def scan_cost(reader: Reader, start: int, limit: int) -> int:
    """Number of samples that the scans of the JPEG at an offset pass over, plus bytes that were searched to count them.

    Entropy-coded data is only searched for markers, and only if there may be a second scan.

    Raises:
        LimitExceededError: the sum is above ``limit`` and above ``SCAN_PASSES`` times the samples of the frame.
    """
    kind = count = passed = scans = end = 0
    samples: dict[int, int] = {}
    try:
        if reader.read(start, 2) != b"\xff\xd8":
            return 0
        for marker, _, offset, size in _segments(reader, start + 2):
            end = offset + size - start
            check_limit(passed + end, limit, "samples that its JPEG scans pass over")
            if marker in _WITHOUT_LENGTH and marker != _TEMPORARY:
                break  # the end of the image, or not a JPEG
            if marker in _FRAMES:
                kind, (samples, count) = marker, _frame(reader.read(offset, size))
                limit = max(limit, SCAN_PASSES * sum(samples.values()))
            elif marker == _SOS:
                selected = reader.read(offset, 1)[0]
                if not scans and kind in _SEQUENTIAL and selected == count:
                    return sum(samples.values())  # decoders end after this scan
                scans += 1
                components = reader.read(offset + 1, 2 * selected)[::2]
                passed += sum(samples.get(component, 0) for component in components) + _SCAN_OVERHEAD
    except (EOFError, struct.error, IndexError):
        end = max(reader.size - start, 0)  # cut off or damaged
    return passed + end


def _frame(data: bytes) -> tuple[dict[int, int], int]:
    """Samples of each component of a frame, and the number of components, of which several may have one name."""
    height, width, count = struct.unpack_from(">HHB", data, 1)
    parts = [(data[i], data[i + 1] >> 4, data[i + 1] & 15) for i in range(6, 6 + 3 * count, 3)]
    across, down = max((part[1] for part in parts), default=0) or 1, max((part[2] for part in parts), default=0) or 1
    samples: dict[int, int] = {}
    for component, x, y in parts:
        size = -(-width * x // across) * -(-height * y // down)
        samples[component] = max(size, samples.get(component, 0))
    return samples, count


def _segments(reader: Reader, position: int) -> Iterator[tuple[int, int, int, int]]:
    """Marker, its offset, offset of the data and their size, of each segment, until the file ends in an EOFError."""
    while True:
        start = reader.search(_MARKER, position)
        marker = reader.read(start + 1, 1)[0]
        if marker in _WITHOUT_LENGTH:
            offset, size = start + 2, 0
        else:
            offset, size = start + 4, max(reader.unpack(">H", start + 2)[0] - 2, 0)
        yield marker, start, offset, size
        position = offset + size
