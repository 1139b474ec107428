"""What the tests of reading images share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliper.errors import ImageError
from cliper.images import load_image

__all__ = ["photo", "refusal"]


def photo(width: int = 64, height: int = 48) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def refusal(source: Any, **options: Any) -> str:
    """The message of the ImageError, which is one line."""
    with pytest.raises(ImageError) as caught:
        load_image(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message
