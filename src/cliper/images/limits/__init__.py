"""Limits on image files, checked on their structure before any decoder reads them.

A file of a megabyte can make a decoder take gigabytes or minutes: by directory entries that share their data, by scans
that each pass over all pixels, by blocks that are copied again for each further one. :func:`check_limits` walks
through the structure of a file, without decoding it, and refuses what exceeds a limit. The walk itself has a budget,
seeks over pixels, and ends without an error where a file is damaged, because the decoder reports that.

``docs/bad-input.md`` lists the limits. Only bytes and streams here: no imaging library.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import IO

from cliper.images.limits.avif import check_avif, without_exif
from cliper.images.limits.bitmaps import check_bmp, check_gif, check_png, check_ppm
from cliper.images.limits.directories import exif_orientation
from cliper.images.limits.heif import check_heif
from cliper.images.limits.jpeg import check_jpeg
from cliper.images.limits.jpeg2000 import check_jpeg2000
from cliper.images.limits.reader import CheckSize, LimitExceededError, Reader
from cliper.images.limits.tiff import check_tiff

__all__ = ["LimitExceededError", "check_limits", "exif_orientation", "without_exif"]

# By Pillow's names of formats. WebP has no check: its decoder's work was measured to be in proportion to the pixels
# and bytes of a file.
_CHECKS: dict[str, Callable[[Reader, CheckSize], None]] = {
    "AVIF": check_avif,
    "BMP": check_bmp,
    "GIF": check_gif,
    "HEIF": check_heif,
    "JPEG": check_jpeg,
    "JPEG2000": check_jpeg2000,
    "MPO": check_jpeg,
    "PNG": check_png,
    "PPM": check_ppm,
    "TIFF": check_tiff,
}


def check_limits(stream: IO[bytes], format: str, check_size: CheckSize) -> None:
    """Check the structure of an image file against the limits of its format; afterwards the stream is at its start.

    Args:
        stream: a seekable file.
        format: Pillow's name of the format. Formats without limits pass.
        check_size: called with each (width, height) on which a decoder may act before it reports one; may raise.

    Raises:
        LimitExceededError: the file exceeds a limit.
    """
    try:
        if format in _CHECKS:
            _CHECKS[format](Reader(stream), check_size)
    except (EOFError, struct.error, IndexError):
        pass  # cut off or damaged
    finally:
        stream.seek(0)
