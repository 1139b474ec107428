"""The image with its regions in colour."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cliper.errors import InputError, OutputError, ShapeError, quote_path
from cliper.files import atomic_write
from cliper.formats.label_png import check_labels
from cliper.formats.legend import LegendEntry, add_legend
from cliper.formats.palette import overlay_palette
from cliper.images import ImageSource, load_image

__all__ = ["draw_overlay", "write_overlay"]

# Suffix -> format, longest side that it can hold, and options of saving. JPEG with full colour resolution: the
# legend's letters and the borders are thin.
_FORMATS: dict[str, tuple[str, int, dict[str, Any]]] = {
    ".png": ("PNG", 2**31 - 1, {"compress_level": 4}),
    ".jpg": ("JPEG", 65500, {"quality": 92, "subsampling": 0}),
    ".jpeg": ("JPEG", 65500, {"quality": 92, "subsampling": 0}),
    ".webp": ("WEBP", 16383, {"quality": 90}),
}

# Rows coloured at once: numpy's index needs 8 bytes per pixel, too much for a large image as a whole.
_ROWS = 256


def draw_overlay(
    image: ImageSource,
    labels: npt.ArrayLike,
    classes: Sequence[str],
    *,
    opacity: float = 0.55,
    legend: bool = True,
) -> Image.Image:
    """The image with each region in its class's colour, and a legend of the classes that occur.

    The legend lists classes with their share of the area, largest first, background last. It is appended below the
    image, or to the right where the result is smaller; the image is not scaled. The colours are those of
    :func:`cliper.formats.palette.overlay_palette`.

    Args:
        image: path, PIL image or array.
        labels: [H, W] integers, 0 is background (not coloured), i + 1 is ``classes[i]``.
        classes: names.
        opacity: of the colours, 0 to 1.
        legend: whether to append the legend.

    Returns:
        An image in mode RGB.

    Raises:
        ImageError: the image cannot be read.
        ShapeError: labels whose shape is not that of the image.
        InputError: labels that are not integers, or beyond the classes; an opacity out of range.

    Example:
        >>> draw_overlay(np.zeros((2, 3), np.uint8), [[0, 1, 1], [0, 0, 1]], ["dog"], legend=False).size
        (3, 2)
    """
    if not 0 <= opacity <= 1:
        raise InputError(f"opacity: expected a number from 0 to 1, got {opacity!r}")
    overlay = load_image(image)
    array = check_labels(labels)
    if array.shape != (overlay.height, overlay.width):
        raise ShapeError(
            f"expected labels of the image's height and width {overlay.height}x{overlay.width}, "
            f"got {array.shape[0]}x{array.shape[1]}; resize the labels (nearest) first"
        )
    if array.max() > len(classes):
        raise InputError(
            f"expected labels up to {len(classes)}, one for each class, got {int(array.max())}; "
            "pass the classes that the labels were made with"
        )
    array = array.astype(np.uint16)
    palette = overlay_palette(len(classes) + 1)

    counts = np.zeros(len(classes) + 1, dtype=np.int64)
    for top in range(0, overlay.height, _ROWS):
        rows = array[top : top + _ROWS]
        alpha = np.where(rows > 0, np.uint8(round(255 * opacity)), np.uint8(0))
        overlay.paste(Image.fromarray(palette[rows]), (0, top), Image.fromarray(alpha))
        counts += np.bincount(rows.ravel(), minlength=len(counts))
    _draw_borders(overlay, array)
    if not legend:
        return overlay
    shares = (counts / array.size).tolist()
    entries = [
        LegendEntry(classes[label - 1], shares[label], tuple(palette[label].tolist()))
        for label in np.argsort(-counts[1:], kind="stable") + 1
        if counts[label]
    ]
    if counts[0]:
        entries.append(LegendEntry("background", shares[0], None))
    return add_legend(overlay, entries)


def write_overlay(path: str | Path, overlay: Image.Image, *, quality: int | None = None) -> None:
    """Write an overlay as PNG, JPEG or WebP, by the suffix.

    Args:
        path: the file to write: ``.png``, ``.jpg``, ``.jpeg`` or ``.webp``.
        overlay: from :func:`draw_overlay`.
        quality: of JPEG and WebP, 1 to 100; None is 92 and 90. PNG is lossless.

    Raises:
        OutputError: another suffix, an image too large for the format, or the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _FORMATS:
        raise OutputError(
            f"expected an overlay's name to end in {', '.join(_FORMATS)}, got {quote_path(path)}; add .png"
        )
    name, max_side, options = _FORMATS[suffix]
    if max(overlay.size) > max_side:
        raise OutputError(
            f"expected at most {max_side} pixels a side for {name}, got {overlay.width}x{overlay.height}: "
            f"{quote_path(path)}; write it as .png"
        )
    if quality is not None and "quality" in options:
        options = {**options, "quality": quality}
    encoded = io.BytesIO()  # to a file, Pillow's JPEG encoder ignores that a disk is full
    overlay.save(encoded, format=name, **options)
    with atomic_write(path) as temporary:
        temporary.write_bytes(encoded.getvalue())


def _draw_borders(overlay: Image.Image, labels: npt.NDArray[np.uint16]) -> None:
    """Draw a white line with dark edges between regions, so that it is visible on any two colours."""
    height, width = labels.shape
    short = min(height, width)
    if short < 32:  # lines would hide the regions
        return
    edge = np.zeros((height, width), dtype=np.bool_)
    edge[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    edge[:-1] |= labels[1:] != labels[:-1]
    core = _dilate(edge, round(short / 1200))
    halo = _dilate(core, max(round(short / 1000), 1))
    for region, colour, alpha in ((halo, (16, 18, 20), 110), (core, (255, 255, 255), 235)):
        mask = Image.fromarray(region.astype(np.uint8) * np.uint8(alpha))
        overlay.paste(colour, (0, 0), mask)


def _dilate(region: npt.NDArray[np.bool_], radius: int) -> npt.NDArray[np.bool_]:
    """Dilation by a square of side 2 * radius + 1."""
    wide = region.copy()
    for step in range(1, radius + 1):
        wide[:, step:] |= region[:, :-step]
        wide[:, :-step] |= region[:, step:]
    dilated = wide.copy()
    for step in range(1, radius + 1):
        dilated[step:] |= wide[:-step]
        dilated[:-step] |= wide[step:]
    return dilated
