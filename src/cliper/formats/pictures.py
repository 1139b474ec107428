"""The formats that are one file a picture and nothing else: label map, overlays, archive of scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cliper.formats.base import Format, FormatOptions, Picture
from cliper.formats.label_png import write_label_png
from cliper.formats.npz import write_npz
from cliper.formats.overlay import write_overlay

if TYPE_CHECKING:
    from cliper.result import Segmentation

__all__ = ["FORMATS"]


def _labels(result: Segmentation, path: Path, picture: Picture, options: FormatOptions) -> None:
    write_label_png(path, result.labels, highest=len(result.classes))


def _overlay(result: Segmentation, path: Path, picture: Picture, options: FormatOptions) -> None:
    write_overlay(path, result.picture, result.labels, result.classes, quality=options.quality)


def _npz(result: Segmentation, path: Path, picture: Picture, options: FormatOptions) -> None:
    write_npz(path, labels=result.labels, scores=result.scores, classes=result.classes, confidence=result.confidence)


FORMATS = (
    Format("labels", ".labels.png", "label map as indexed PNG, VOC palette", _labels),
    Format("overlay", ".overlay.png", "the picture in colours with a legend, PNG", _overlay),
    Format("overlay-jpg", ".overlay.jpg", "the same as JPEG", _overlay),
    Format("overlay-webp", ".overlay.webp", "the same as WebP", _overlay),
    Format("npz", ".npz", "labels, scores and confidence for numpy.load", _npz),
)
