"""Limits on requests, as one frozen, validated object."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cliper.errors import InputError

__all__ = ["Limits"]


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

    queue: int = 32
    megabytes: float = 16.0
    megapixels: float = 16.0
    classes: int = 256
    pixel_classes: float = 1000.0
    patches: int = 4096
    texts: int = 8192
    tasks: int = 100
    seconds: float = 60.0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("queue", 1, 10_000),
            ("megabytes", 0.001, 1000),
            ("megapixels", 0.001, 128),
            ("classes", 1, 65535),
            ("pixel_classes", 0.001, 1_000_000),
            ("patches", 1, 8192),
            ("texts", 1, 10_000_000),
            ("tasks", 1, 10_000),
            ("seconds", 0.001, 86400),
        ):
            value = getattr(self, name)
            if not math.isfinite(value) or not low <= value <= high:
                raise InputError(f"{name}: expected a number from {low:g} to {high:.12g}, got {value:g}")

    @property
    def body_bytes(self) -> int:
        """Maximum size of a body."""
        return int(self.megabytes * 1e6)

    @property
    def pixels(self) -> int:
        """Maximum number of pixels of an image."""
        return int(self.megapixels * 1e6)
