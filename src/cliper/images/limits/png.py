"""Limits of PNG files: the number of chunks, and what their metadata takes when it is unpacked."""

from __future__ import annotations

from cliper.images.limits.reader import MAX_METADATA, CheckSize, LimitExceededError, Reader, mebibytes

__all__ = ["check_png"]

MAX_DATA_CHUNKS = 2**17
MAX_OTHER_CHUNKS = 2**13
_MAX_FIXED = 1024  # bytes of a chunk whose size the standard fixes or bounds
_FIXED = (b"IHDR", b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"acTL", b"fcTL")
_PACKED = (b"iCCP", b"zTXt", b"iTXt")
_RATIO = 1032  # of deflate, at most
_MAX_UNPACKED = 2**20  # bytes to which Pillow unpacks a chunk


def check_png(reader: Reader, check_size: CheckSize) -> None:
    """Check the chunks of a file, to its end or, of an animation, to its second frame.

    Raises:
        LimitExceededError: too many chunks, or too much metadata.
    """
    position, data_chunks, others, metadata = 8, 0, 0, 0
    frames: list[int] = []
    while True:
        size, kind = reader.unpack(">L4s", position)
        if kind == b"IEND":
            return
        if kind in (b"IDAT", b"fdAT"):
            data_chunks += 1
        else:
            others += 1
            if kind in _FIXED and size > _MAX_FIXED:
                name = kind.decode()
                raise LimitExceededError(f"with at most {_MAX_FIXED:,} bytes in its PNG chunk {name}", f"{size:,}")
            metadata += size + (min(_RATIO * size, _MAX_UNPACKED) if kind in _PACKED else 0)
        if kind == b"IHDR":
            check_size(reader.unpack(">LL", position + 8))
        if kind == b"acTL" and not data_chunks:
            frames += reader.unpack(">L", position + 8)
        if kind == b"fcTL" and data_chunks and len(frames) == 1 and 1 < frames[0] <= 2**31:
            return  # Pillow reads no further
        if data_chunks > MAX_DATA_CHUNKS or others > MAX_OTHER_CHUNKS:
            raise LimitExceededError(
                f"with at most {MAX_DATA_CHUNKS:,} PNG chunks of pixels and {MAX_OTHER_CHUNKS:,} others", "more"
            )
        if metadata > MAX_METADATA:
            raise LimitExceededError(
                f"with at most {mebibytes(MAX_METADATA)} of metadata, unpacked", f"{mebibytes(metadata)} or more"
            )
        position += 12 + size
