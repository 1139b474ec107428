"""Limits of BMP and PPM files: what Pillow decodes in Python, sample by sample."""

from __future__ import annotations

import re

from cliper.images.limits.reader import LimitExceededError, Reader, mebibytes

__all__ = ["check_bmp", "check_ppm"]

MAX_PPM_SAMPLES = 2**21
MAX_RUN_PIXELS = 2**22  # of a run-length coded BMP
MAX_RUN_WIDTH = 2**16  # of a run-length coded BMP, which can skip 255 rows in a few bytes
MAX_HEADER = 2**16  # bytes of a PPM's header
MAX_PLAIN = 2**26  # bytes of a PPM with numbers as text
MAX_COMMENTS = 64  # among these numbers
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
_FAST = {b"P5": (255, 65535)}  # greatest values that are not decoded in Python
_BANDS = {b"P3": 3, b"P6": 3, b"P0CMYK": 4, b"PyCMYK": 4, b"PyRGBA": 4}
_BLOCK = 2**20


def check_bmp(reader: Reader) -> None:
    """Check the size of the header, and of run-length coded pixels.

    Raises:
        LimitExceededError: an unknown header, or too many pixels.
    """
    (size,) = reader.unpack("<L", 14)
    if size not in _BMP_HEADERS:
        raise LimitExceededError("with a BMP header of a known size", f"{size:,} bytes")
    if size == 12:
        return
    width, height, compression = reader.unpack("<Ll4xL", 18)
    if compression in (1, 2) and (width > MAX_RUN_WIDTH or width * abs(height) > MAX_RUN_PIXELS):
        raise LimitExceededError(
            f"of at most {MAX_RUN_PIXELS:,} pixels, {MAX_RUN_WIDTH:,} a row, in a run-length coded BMP",
            f"{width}x{abs(height)}",
        )


def check_ppm(reader: Reader) -> None:
    """Check the length of the header, and the size of what is decoded in Python: text, and unusual greatest values.

    Raises:
        LimitExceededError: too long a header, too many samples, or too many comments.
    """
    data = reader.read(0, min(reader.size, MAX_HEADER))
    magic = data[:6].split(maxsplit=1)[0]
    # A comment may stand within a number, too.
    parts = re.sub(rb"#[^\r\n]*[\r\n]?", b"", data[len(magic) :]).split(maxsplit=3)
    needed = 2 if magic in (b"P1", b"P4") else 3  # width, height and greatest value
    if len(parts) <= needed and len(data) < reader.size:
        raise LimitExceededError(f"with a PPM header of at most {MAX_HEADER:,} bytes", "a longer one")
    plain = magic in (b"P1", b"P2", b"P3")
    try:
        width, height = int(parts[0]), int(parts[1])
        if magic in (b"P4", b"Pf") or (not plain and int(parts[2]) in _FAST.get(magic, (255,))):
            return
    except ValueError:
        return  # Pillow reads it neither
    samples = width * height * _BANDS.get(magic, 1)
    if samples > MAX_PPM_SAMPLES:
        raise LimitExceededError(
            f"of at most {MAX_PPM_SAMPLES:,} samples in a PPM of text or of unusual depth", f"{samples:,}"
        )
    if plain:
        _check_text(reader)


def _check_text(reader: Reader) -> None:
    if reader.size > MAX_PLAIN:
        raise LimitExceededError(f"of at most {mebibytes(MAX_PLAIN)} in a PPM of text", mebibytes(reader.size))
    comments = sum(
        reader.read(offset, min(_BLOCK, reader.size - offset)).count(b"#") for offset in range(0, reader.size, _BLOCK)
    )
    if comments > MAX_COMMENTS:
        raise LimitExceededError(f"with at most {MAX_COMMENTS} comments in a PPM of text", f"{comments:,}")
