"""Formats by name: what ``--format`` takes.

For each picture ``write`` makes the file ``NAME + suffix``; ``assemble``, where a format has it, then makes what is
about the whole run, such as one COCO file. Neither needs the model, and ``assemble`` needs only what ``write`` left on
disk, so that parts may come from other processes, other machines and earlier runs.
"""

from __future__ import annotations

import difflib

from cliper.errors import InputError
from cliper.formats.base import Format, FormatOptions, Part, Picture
from cliper.formats.coco import COCO
from cliper.formats.cvat import CVAT
from cliper.formats.gallery import GALLERY
from cliper.formats.label_studio import LABEL_STUDIO
from cliper.formats.labelme import LABELME
from cliper.formats.panoptic import PANOPTIC
from cliper.formats.pictures import FORMATS
from cliper.formats.yolo import YOLO

__all__ = ["Format", "FormatOptions", "Part", "Picture", "find_format", "format_names"]

_FORMATS: dict[str, Format] = {
    format.name: format for format in (*FORMATS, COCO, PANOPTIC, CVAT, LABEL_STUDIO, LABELME, YOLO, GALLERY)
}


def format_names() -> tuple[str, ...]:
    """Names of all formats, in the order in which help texts show them."""
    return tuple(_FORMATS)


def find_format(name: str) -> Format:
    """The format of that name; case does not matter.

    Raises:
        InputError: there is none; the message has the nearest one.

    Example:
        >>> find_format("labels").suffix
        '.labels.png'
    """
    wanted = name.strip().lower()
    if wanted in _FORMATS:
        return _FORMATS[wanted]
    near = difflib.get_close_matches(wanted, _FORMATS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise InputError(f"expected a format, got {name!r}; {hint}known: {', '.join(_FORMATS)}")
