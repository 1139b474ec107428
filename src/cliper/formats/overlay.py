"""The picture with its regions in colour, for eyes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cliper.errors import InputError, OutputError, ShapeError
from cliper.files import atomic_write
from cliper.formats.label_png import check_labels
from cliper.formats.legend import LegendEntry, add_legend
from cliper.formats.palette import voc_palette
from cliper.images import ImageSource, load_image

__all__ = ["OVERLAY_SUFFIXES", "draw_overlay", "write_overlay"]

# Suffix -> format, largest side that it can hold, and how to save. JPEG with full colour resolution: the
# legend's letters and the borders are thin.
_FORMATS: dict[str, tuple[str, int, dict[str, Any]]] = {
    ".png": ("PNG", 2**31 - 1, {"compress_level": 4}),
    ".jpg": ("JPEG", 65500, {"quality": 92, "subsampling": 0}),
    ".jpeg": ("JPEG", 65500, {"quality": 92, "subsampling": 0}),
    ".webp": ("WEBP", 16383, {"quality": 90}),
}

OVERLAY_SUFFIXES = tuple(_FORMATS)

# Rows coloured at once: numpy indexes with 8 bytes a pixel, too much for a large picture as a whole.
_ROWS = 256


def draw_overlay(
    image: ImageSource,
    labels: npt.ArrayLike,
    classes: Sequence[str],
    *,
    opacity: float = 0.55,
    legend: bool = True,
    background_name: str = "background",
) -> Image.Image:
    """The picture, each region in its class's VOC colour, with a legend of the classes that occur.

    The legend lists classes by area, largest first, background last, with their share of the picture. It is
    appended below the picture, or at its right where that makes a smaller whole; the picture is not scaled.

    Args:
        image: the picture; path, PIL image or array.
        labels: [H, W] integers, 0 is background (left as it is), i + 1 is ``classes[i]``.
        classes: names.
        opacity: of the colours, 0 to 1.
        legend: whether to append the legend.
        background_name: what the legend calls label 0.

    Returns:
        A picture in mode RGB.

    Raises:
        ImageError: the picture cannot be read.
        ShapeError: labels that are not [H, W] of the picture.
        InputError: labels that are not integers, or beyond the classes; an opacity out of range.

    Example:
        >>> draw_overlay(np.zeros((2, 3), np.uint8), [[0, 1, 1], [0, 0, 1]], ["dog"], legend=False).size
        (3, 2)
    """
    if not 0 <= opacity <= 1:
        raise InputError(f"opacity: expected a number from 0 to 1, got {opacity!r}")
    picture = load_image(image)
    array = check_labels(labels)
    if array.shape != (picture.height, picture.width):
        raise ShapeError(
            f"expected labels of the picture's height and width {picture.height}x{picture.width}, "
            f"got {array.shape[0]}x{array.shape[1]}; resize the labels (nearest) first"
        )
    if array.max() > len(classes):
        raise InputError(
            f"expected labels up to {len(classes)}, one for each class, got {int(array.max())}; "
            "pass the classes that the labels were made with"
        )
    array = array.astype(np.uint16)
    palette = voc_palette(len(classes) + 1)

    counts = np.zeros(len(classes) + 1, dtype=np.int64)
    for top in range(0, picture.height, _ROWS):
        rows = array[top : top + _ROWS]
        strength = np.where(rows > 0, np.uint8(round(255 * opacity)), np.uint8(0))
        picture.paste(Image.fromarray(palette[rows]), (0, top), Image.fromarray(strength))
        counts += np.bincount(rows.ravel(), minlength=len(counts))
    _draw_borders(picture, array)
    if not legend:
        return picture

    present = [int(label) for label in np.argsort(-counts[1:], kind="stable") + 1 if counts[label]]
    entries = [
        LegendEntry(classes[label - 1], int(counts[label]) / array.size, (int(red), int(green), int(blue)))
        for label in present
        for red, green, blue in [palette[label]]
    ]
    if counts[0]:
        entries.append(LegendEntry(background_name, int(counts[0]) / array.size, None))
    return add_legend(picture, entries)


def write_overlay(
    path: str | Path,
    image: ImageSource,
    labels: npt.ArrayLike,
    classes: Sequence[str],
    *,
    quality: int | None = None,
    **options: Any,
) -> None:
    """Draw an overlay and write it as PNG, JPEG or WebP, as the suffix says.

    Args:
        path: where to; ``.png``, ``.jpg``, ``.jpeg`` or ``.webp``.
        image: as in :func:`draw_overlay`.
        labels: as in :func:`draw_overlay`.
        classes: as in :func:`draw_overlay`.
        quality: of JPEG and WebP, 1 to 100; None is 92 and 90. PNG loses nothing.
        options: the keyword arguments of :func:`draw_overlay`.

    Raises:
        OutputError: another suffix, a picture too large for the format, or the file cannot be written.
        InputError: as :func:`draw_overlay`.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _FORMATS:
        raise OutputError(
            f"expected an overlay's name to end in {', '.join(OVERLAY_SUFFIXES)}, got {str(path)!r}; add .png"
        )
    name, longest, how = _FORMATS[suffix]
    overlay = draw_overlay(image, labels, classes, **options)
    if max(overlay.size) > longest:
        raise OutputError(
            f"expected at most {longest} pixels a side for {name}, got {overlay.width}x{overlay.height}: "
            f"{str(path)!r}; write it as .png"
        )
    if quality is not None and "quality" in how:
        how = {**how, "quality": quality}
    with atomic_write(path) as temporary:
        overlay.save(temporary, format=name, **how)


def _draw_borders(picture: Image.Image, labels: npt.NDArray[np.uint16]) -> None:
    """A white line between regions with a dark edge at both sides, so that it shows on any two colours."""
    height, width = labels.shape
    short = min(height, width)
    if short < 32:  # there, lines would hide the regions
        return
    edge = np.zeros((height, width), dtype=np.bool_)
    edge[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    edge[:-1] |= labels[1:] != labels[:-1]
    core = _dilate(edge, round(short / 1200))
    halo = _dilate(core, max(round(short / 1000), 1))
    for region, colour, strength in ((halo, (16, 18, 20), 110), (core, (255, 255, 255), 235)):
        mask = Image.fromarray(region.astype(np.uint8) * np.uint8(strength))
        picture.paste(colour, (0, 0), mask)


def _dilate(region: npt.NDArray[np.bool_], by: int) -> npt.NDArray[np.bool_]:
    """The region and all that is at most ``by`` pixels from it, along rows and columns."""
    wide = region.copy()
    for step in range(1, by + 1):
        wide[:, step:] |= region[:, :-step]
        wide[:, :-step] |= region[:, step:]
    grown = wide.copy()
    for step in range(1, by + 1):
        grown[step:] |= wide[:-step]
        grown[:-step] |= wide[step:]
    return grown
