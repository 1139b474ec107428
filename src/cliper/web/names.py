"""What visitors and callers are told a model is called."""

from __future__ import annotations

from pathlib import Path

from cliper.checkpoints import find_entry
from cliper.formats.label_studio import display_name

__all__ = ["public_name"]


def public_name(name: str) -> str:
    """A model's name without the folders of this machine, those of a relative path neither; aliases and hub names stay.

    Example:
        >>> public_name("ViT-B/16"), public_name("/home/me/models/mine")
        ('ViT-B/16', 'mine')
    """
    if find_entry(name) is not None:
        return name
    path = Path(name).expanduser()
    return path.resolve().name if path.is_dir() else display_name(name)
