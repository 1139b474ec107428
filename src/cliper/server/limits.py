"""Limits on requests, as one frozen, validated object."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from cliper.errors import InputError

__all__ = ["Limits"]


def _limit(default: float, low: float, high: float) -> Any:
    return field(default=default, metadata={"range": (low, high)})


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of the server; a request beyond them is refused, never truncated.

    The memory that clients can use is bounded by ``queue`` times a body, a decoded image (3 bytes a pixel), and a
    result or a response.

    Args:
        queue: concurrent requests: being read, waiting, computed or sent; further ones get 429.
        megabytes: size of a request's body, in units of 10^6 bytes.
        megapixels: size of an image, in units of 10^6 pixels.
        classes: number of classes in a request, and of background names.
        pixel_classes: megapixels of an image times number of classes: the cost of label assignment.
        patches: of an image as the model sees it, those of its sliding windows included.
        texts: prompts times templates in a request, background names included.
        tasks: images in one request of Label Studio or of an export.
        seconds: from a request's headers to its response, and as long again for the client to read the response.

    Raises:
        InputError: a number out of range.

    Example:
        >>> Limits(megabytes=2.5).body_bytes
        2500000
    """

    queue: int = _limit(32, 1, 10_000)
    megabytes: float = _limit(16.0, 0.001, 1000)
    megapixels: float = _limit(16.0, 0.001, 128)
    classes: int = _limit(256, 1, 65535)
    pixel_classes: float = _limit(1000.0, 0.001, 1_000_000)
    patches: int = _limit(4096, 1, 8192)
    texts: int = _limit(8192, 1, 10_000_000)
    tasks: int = _limit(100, 1, 10_000)
    seconds: float = _limit(60.0, 0.001, 86400)

    def __post_init__(self) -> None:
        for one in fields(self):
            value, (low, high) = getattr(self, one.name), one.metadata["range"]
            if not math.isfinite(value) or not low <= value <= high:
                raise InputError(f"{one.name}: expected a number from {low:g} to {high:.12g}, got {value:g}")

    @property
    def body_bytes(self) -> int:
        """Maximum size of a body."""
        return int(self.megabytes * 1e6)

    @property
    def pixels(self) -> int:
        """Maximum number of pixels of an image."""
        return int(self.megapixels * 1e6)
