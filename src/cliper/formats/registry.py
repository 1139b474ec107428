"""Formats by name: the values of ``--format``.

``Format.write`` writes the file of each image, ``Format.file_name``; ``Format.merge`` then writes the files about the
whole run, such as one COCO file. Merging needs no model, only the images' files, which may come from other processes,
machines and earlier runs.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

from cliper.errors import InputError
from cliper.files import to_utf8, write_text
from cliper.formats.base import Format, FormatOptions, ImageInfo, ImageOutput, LabeledImage
from cliper.formats.coco import COCO
from cliper.formats.coco_panoptic import COCO_PANOPTIC
from cliper.formats.cvat import CVAT
from cliper.formats.gallery import GALLERY
from cliper.formats.hf_dataset import HF_DATASET
from cliper.formats.label_png import write_label_png
from cliper.formats.label_studio import LABEL_STUDIO
from cliper.formats.labelme import LABELME
from cliper.formats.masks import CUTOUTS, MASKS
from cliper.formats.npz import write_npz
from cliper.formats.overlay import draw_overlay, write_overlay
from cliper.formats.training_data import IMAGES
from cliper.formats.yolo import YOLO
from cliper.formats.yolo_semantic import YOLO_SEMANTIC

__all__ = ["find_format", "find_formats", "format_names"]


def _write_labels(result: LabeledImage, path: Path, info: ImageInfo, options: FormatOptions) -> None:
    write_label_png(
        path, result.labels, max_label=len(result.classes), classes=result.classes, grey=options.label_mode == "grey"
    )


def _merge_labels(
    outputs: Iterable[ImageOutput], folder: Path, classes: Sequence[str], options: FormatOptions
) -> list[Path]:
    """A line for each label: its number and its name."""
    path = folder / "classes.txt"
    write_text(path, "".join(f"{label} {to_utf8(name)}\n" for label, name in enumerate(["background", *classes])))
    return [path]


def _write_overlay(result: LabeledImage, path: Path, info: ImageInfo, options: FormatOptions) -> None:
    overlay = draw_overlay(result.image, result.labels, result.classes)
    write_overlay(path, overlay, quality=options.quality)


def _write_npz(result: LabeledImage, path: Path, info: ImageInfo, options: FormatOptions) -> None:
    write_npz(path, result)


_FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        Format(
            "labels",
            ".labels.png",
            "label map as indexed PNG, VOC palette",
            _write_labels,
            _merge_labels,
            merged_files=("classes.txt",),
            self_contained=True,
        ),
        Format("overlay", ".overlay.png", "the image in colours with a legend, PNG", _write_overlay, shows_image=True),
        Format("overlay-jpg", ".overlay.jpg", "the same as JPEG", _write_overlay, shows_image=True),
        Format("overlay-webp", ".overlay.webp", "the same as WebP", _write_overlay, shows_image=True),
        MASKS,
        CUTOUTS,
        Format("npz", ".npz", "labels, scores and confidence for numpy.load", _write_npz),
        COCO,
        COCO_PANOPTIC,
        CVAT,
        LABEL_STUDIO,
        LABELME,
        YOLO,
        YOLO_SEMANTIC,
        HF_DATASET,
        IMAGES,
        GALLERY,
    )
}


def format_names() -> tuple[str, ...]:
    """Names of all formats, in the order of help texts."""
    return tuple(_FORMATS)


def find_format(name: str) -> Format:
    """The format of that name, in upper or lower case.

    Raises:
        InputError: there is none; the message suggests the nearest one.

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


def find_formats(names: Iterable[str]) -> tuple[Format, ...]:
    """The formats of those names, in order, then the formats of files that their readers need, too; each once.

    Raises:
        InputError: one does not exist.

    Example:
        >>> [format.name for format in find_formats(["yolo-semantic", "labels"])]
        ['yolo-semantic', 'labels', 'images']
    """
    formats = [find_format(name) for name in names]
    return tuple(dict.fromkeys([*formats, *(other for format in formats for other in format.companions)]))
