"""Decoders that run out of memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import ImageFile


def exhaust_memory(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Let memory run out whenever Pillow decodes the file ``path``."""
    load = ImageFile.ImageFile.load

    def load_others(image: ImageFile.ImageFile) -> object:
        if str(getattr(image.fp, "name", "")) == str(path):
            raise MemoryError
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", load_others)
