"""What a caller may ask for at most, as one frozen, validated object."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cliper.errors import InputError

__all__ = ["Limits"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of the service; beyond them a request is refused, never cut down.

    Memory that callers can take is bounded by ``queue`` times a body, a decoded picture (3 bytes a pixel), and a result
    or an answer.

    Args:
        queue: requests that are read, wait, are computed or answered at a time; more are told to come again.
        megabytes: of a request's body, in units of 10^6 bytes.
        megapixels: of a picture, in units of 10^6 pixels.
        classes: of a request; as many background names.
        labelling: megapixels of a picture times classes: what giving each pixel its class costs.
        patches: of a picture as the model sees it, those of its sliding windows included.
        texts: prompts times templates of a request, background names included.
        tasks: pictures that one request of Label Studio gets answered together; of more only the first.
        seconds: from a request's headers to its answer, and as long again for the answer to be taken.

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
    labelling: float = 1000.0
    patches: int = 4096
    texts: int = 8192
    tasks: int = 100
    seconds: float = 60.0

    def __post_init__(self) -> None:
        for name, least, most in (
            ("queue", 1, 10_000),
            ("megabytes", 0.001, 1000),
            ("megapixels", 0.001, 128),
            ("classes", 1, 65535),
            ("labelling", 0.001, 1_000_000),
            ("patches", 1, 8192),
            ("texts", 1, 10_000_000),
            ("tasks", 1, 10_000),
            ("seconds", 0.001, 86400),
        ):
            value = getattr(self, name)
            if not math.isfinite(value) or not least <= value <= most:
                raise InputError(f"{name}: expected a number from {least:g} to {most:.12g}, got {value:g}")

    @property
    def body_bytes(self) -> int:
        """The largest body."""
        return int(self.megabytes * 1e6)

    @property
    def pixels(self) -> int:
        """Of the largest picture."""
        return int(self.megapixels * 1e6)
