"""Limits of GIF files: the blocks before the first image."""

from __future__ import annotations

from cliper.images.limits.reader import CheckSize, LimitExceededError, Reader

__all__ = ["check_gif"]

MAX_BLOCKS = 2**15  # before the first image
MAX_COMMENT = 2**16  # bytes of comments before the first image; Pillow copies them for each further block
_EXTENSION, _IMAGE, _END = b"!", b",", b";"
_COMMENT, _APPLICATION = 0xFE, 0xFF


def check_gif(reader: Reader, check_size: CheckSize) -> None:
    """Check the extensions before the first image, as Pillow reads them; what follows is not looked at.

    Raises:
        LimitExceededError: too many blocks, or too much of a comment.
    """
    flags = reader.read(10, 1)[0]
    position = 13 + (3 << (flags & 7) + 1 if flags & 128 else 0)
    blocks = comment = 0

    def next_block() -> bytes:
        nonlocal position, blocks
        size = reader.read(position, 1)[0]
        data = reader.read(position + 1, size)
        position, blocks = position + 1 + size, blocks + 1
        if blocks > MAX_BLOCKS:
            raise LimitExceededError(f"with at most {MAX_BLOCKS:,} GIF blocks before its pixels", "more")
        return data

    while True:
        kind = reader.read(position, 1)
        position += 1
        if kind == _END:
            return
        if kind == _IMAGE:
            left, top, width, height = reader.unpack("<4H", position)
            check_size((left + max(width, 1), top + max(height, 1)))
            return
        if kind != _EXTENSION:
            blocks += 1
            continue
        label = reader.read(position, 1)[0]
        position += 1
        data = next_block()
        if label == _COMMENT:
            while data:
                comment += len(data)
                data = next_block()
            if comment > MAX_COMMENT:
                raise LimitExceededError(f"with at most {MAX_COMMENT:,} bytes of comments", f"{comment:,}")
            continue
        if label == _APPLICATION and data.startswith(b"NETSCAPE2.0"):
            next_block()
        while next_block():
            pass
