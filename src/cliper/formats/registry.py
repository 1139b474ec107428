"""Formats by name: what ``--format`` takes.

For each picture ``write`` makes the file ``NAME + suffix``; ``merge``, where a format has it, then makes what is
about the whole run, such as one COCO file. Neither needs the model, and ``merge`` needs only what ``write`` left on
disk, so that parts may come from other processes, other machines and earlier runs.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from cliper.errors import InputError
from cliper.formats.base import Format, FormatOptions, ImageInfo, ImageOutput, LabeledImage
from cliper.formats.coco import COCO
from cliper.formats.coco_panoptic import COCO_PANOPTIC
from cliper.formats.cvat import CVAT
from cliper.formats.gallery import GALLERY
from cliper.formats.label_png import write_label_png
from cliper.formats.label_studio import LABEL_STUDIO
from cliper.formats.labelme import LABELME
from cliper.formats.npz import write_npz
from cliper.formats.overlay import write_overlay
from cliper.formats.yolo import YOLO

__all__ = ["Format", "FormatOptions", "ImageInfo", "ImageOutput", "find_format", "format_names"]


def _labels(result: LabeledImage, path: Path, info: ImageInfo, options: FormatOptions) -> None:
    write_label_png(path, result.labels, max_label=len(result.classes))


def _overlay(result: LabeledImage, path: Path, info: ImageInfo, options: FormatOptions) -> None:
    write_overlay(path, result.image, result.labels, result.classes, quality=options.quality)


def _npz(result: LabeledImage, path: Path, info: ImageInfo, options: FormatOptions) -> None:
    write_npz(path, labels=result.labels, scores=result.scores, classes=result.classes, confidence=result.confidence)


_FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        Format("labels", ".labels.png", "label map as indexed PNG, VOC palette", _labels),
        Format("overlay", ".overlay.png", "the picture in colours with a legend, PNG", _overlay),
        Format("overlay-jpg", ".overlay.jpg", "the same as JPEG", _overlay),
        Format("overlay-webp", ".overlay.webp", "the same as WebP", _overlay),
        Format("npz", ".npz", "labels, scores and confidence for numpy.load", _npz),
        COCO,
        COCO_PANOPTIC,
        CVAT,
        LABEL_STUDIO,
        LABELME,
        YOLO,
        GALLERY,
    )
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
