"""The boxes of AVIF, HEIF and JPEG 2000 files (ISO base media file format)."""

from __future__ import annotations

from collections.abc import Iterator

from cliper.images.limits.reader import Reader

__all__ = ["walk_boxes"]

# Boxes that contain boxes -> bytes before the first of these.
_CONTAINERS = {b"meta": 4} | dict.fromkeys(
    (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"iprp", b"ipco", b"jp2h", b"res "), 0
)


def walk_boxes(reader: Reader) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of the content of each box, containers before their content."""
    stack = [(0, reader.size)]
    while stack:
        start, limit = stack.pop()
        if start + 8 > limit:
            continue
        size, kind = reader.unpack(">L4s", start)
        header = 8
        if size == 1:
            size, header = reader.unpack(">Q", start + 8)[0], 16
        end = min(start + max(size, header), limit) if size else limit
        yield kind, start + header, end
        stack.append((end, limit))
        if kind in _CONTAINERS:
            stack.append((start + header + _CONTAINERS[kind], end))
