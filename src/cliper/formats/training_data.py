"""What data sets for training share: copies of the images, and class ids as PNGs of one channel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cliper.errors import InputError
from cliper.files import atomic_write, to_utf8
from cliper.formats.base import Format, FormatOptions, ImageInfo, LabeledImage
from cliper.formats.label_png import write_label_png

__all__ = ["IGNORED", "IMAGES", "check_class_count", "class_ids", "class_names", "write_class_ids"]

IGNORED = 255
"""Value of pixels that training leaves out."""


def class_ids(labels: npt.NDArray[np.integer], options: FormatOptions) -> npt.NDArray[np.integer]:
    """Labels as ids: the labels themselves, or, without background, one less, and 255 where it is.

    Args:
        labels: [H, W] integers, 0 is background, i + 1 is class i.
        options: whether background is ignored.

    Returns:
        [H, W] integers from 0 to 255.

    Example:
        >>> class_ids(np.array([[0, 1, 2]]), FormatOptions(ignore_background=True)).tolist()
        [[255, 0, 1]]
    """
    return np.where(labels == 0, IGNORED, labels - 1) if options.ignore_background else labels


def class_names(classes: Sequence[str], options: FormatOptions) -> dict[int, str]:
    """The name of each id.

    Example:
        >>> class_names(["dog"], FormatOptions())
        {0: 'background', 1: 'dog'}
    """
    names = classes if options.ignore_background else ["background", *classes]
    return {index: to_utf8(name) for index, name in enumerate(names)}


def check_class_count(classes: Sequence[str], options: FormatOptions) -> None:
    """Raise InputError if the ids of the classes do not fit beside 255 into 8 bits."""
    if len(classes) >= IGNORED:
        raise InputError(f"expected at most 254 classes for masks of class ids, got {len(classes)}; use fewer")


def write_class_ids(result: LabeledImage, path: Path, info: ImageInfo, options: FormatOptions) -> None:
    """Write :func:`class_ids` as a grey PNG of 8 bits."""
    check_class_count(result.classes, options)
    write_label_png(path, class_ids(result.labels, options), grey=True)


def _write_image(result: LabeledImage, path: Path, info: ImageInfo, options: FormatOptions) -> None:
    with atomic_write(path) as temporary:
        result.image.save(temporary, format="PNG")


IMAGES = Format("images", ".png", "the image itself, upright, as PNG", _write_image, folder="images/", shows_image=True)
