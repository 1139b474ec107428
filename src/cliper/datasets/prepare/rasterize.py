"""Label maps from COCO's annotations: polygons, and run lengths in plain or compressed form.

Input is untrusted, and pycocotools does not check it (a coordinate of 1e9 overruns its memory; NaN and missing numbers
are dropped silently). Everything is checked here first, and run lengths are decoded without pycocotools.
"""

from __future__ import annotations

import reprlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from cliper.errors import ImageError, InputError
from cliper.formats.coco_rle import decompress_counts
from cliper.images import MAX_PIXELS, check_pixels

__all__ = [
    "REPAIR_HINT",
    "Annotation",
    "check_polygons",
    "check_size",
    "is_integer",
    "paint_annotations",
    "rasterize",
]

REPAIR_HINT = "; download the file again, or correct it"

# Limits of time and memory. The annotations of COCO and PASCAL-Context stay below a hundredth of each.
_MAX_POLYGONS = 10_000  # per annotation
_MAX_OUTLINE = 1_000_000  # pixels along the polygons of one annotation; pycocotools needs 80 bytes for each
_MAX_OUTLINES = 100_000_000  # of all annotations of one image
_MAX_PAINTED = 10**10  # annotations of one image times its pixels

_MAX_NAMED = 5  # invalid annotations of one image that are named


Annotation = tuple[str, dict[str, Any]]
"""Name for messages, such as ``"annotation 17"``, and the entry of the file."""


def rasterize(
    title: str, height: Any, width: Any, annotations: Sequence[Annotation], labels: Mapping[int, int]
) -> npt.NDArray[np.uint8]:
    """Paint annotations in the given order, a later one over an earlier one. Crowds are painted like objects.

    Args:
        title: file and image, for messages.
        height: of the image, unchecked.
        width: of the image, unchecked.
        annotations: of the image, unchecked.
        labels: category id -> label, 0 to 255.

    Returns:
        Labels [height, width] uint8, 0 outside all annotations.

    Raises:
        ImageError: the size is invalid, or annotations cannot be painted; the message names them.
    """
    check_size(title, height, width, len(annotations))
    painted = np.zeros((height, width), np.uint8)
    outlines = 0.0

    def paint(entry: dict[str, Any]) -> None:
        nonlocal outlines
        category, segmentation = entry.get("category_id"), entry.get("segmentation")
        if not is_integer(category) or category not in labels:
            raise InputError(f"expected one of the {len(labels)} category ids, got {reprlib.repr(category)}")
        if isinstance(segmentation, list):
            outlines = check_polygons(segmentation, height, width, outlines)
            region = _fill_polygons(segmentation, height, width)
        else:
            region = _decode_runs(segmentation, height, width)
        painted[region] = labels[category]

    paint_annotations(title, annotations, paint)
    return painted


def check_size(title: str, height: Any, width: Any, count: int) -> None:
    """Check the size of an image, and that so many annotations can be painted in it.

    Raises:
        ImageError: a side is not a positive integer, or there are too many pixels; the message begins with ``title``.
    """
    for name, side in (("height", height), ("width", width)):
        if not is_integer(side) or not 1 <= side < 2**63:  # the message about pixels divides them as floats
            raise ImageError(f"{title}: expected a positive integer {name}, got {reprlib.repr(side)}{REPAIR_HINT}")
    check_pixels((width, height), MAX_PIXELS, title)
    if count * height * width > _MAX_PAINTED:
        raise ImageError(
            f"{title}: expected at most {_MAX_PAINTED:.0e} annotations times pixels, got {count:,} "
            f"annotations in an image of {width}x{height}{REPAIR_HINT}"
        )


def paint_annotations(title: str, annotations: Iterable[tuple[str, Any]], paint: Callable[[Any], None]) -> None:
    """Call ``paint`` with each annotation in turn.

    Args:
        title: file and image, for messages.
        annotations: names and entries.
        paint: raises InputError if it cannot paint an entry.

    Raises:
        ImageError: some cannot be painted; the message names the first of them, each with its error.
    """
    problems = []
    for name, entry in annotations:
        try:
            paint(entry)
        except InputError as error:
            problems.append(f"{name}: {error}")
    if problems:
        more = f"; and {len(problems) - _MAX_NAMED:,} more" if len(problems) > _MAX_NAMED else ""
        raise ImageError(f"{title}, {'; '.join(problems[:_MAX_NAMED])}{more}{REPAIR_HINT}")


def is_integer(value: Any) -> TypeGuard[int]:
    """Whether a JSON value is an integer and not ``true`` or ``false``."""
    return type(value) is int


def check_polygons(polygons: list[Any], height: int, width: int, outlines: float) -> float:
    """Check the polygons [x, y, x, y, ...] of one annotation.

    Args:
        polygons: unchecked.
        height, width: of the image.
        outlines: length of the outlines of the annotations before, in pixels.

    Returns:
        ``outlines`` with the length of these outlines added.

    Raises:
        InputError: a polygon cannot be drawn, would be drawn as something else, or takes too long.
    """
    if not 1 <= len(polygons) <= _MAX_POLYGONS:
        raise InputError(f"expected 1 to {_MAX_POLYGONS:,} polygons, got {len(polygons):,}")
    outline = 0.0
    for polygon in polygons:
        if not isinstance(polygon, list):
            raise InputError(f"expected a polygon [x, y, x, y, ...], got {reprlib.repr(polygon)}")
        if len(polygon) < 6 or len(polygon) % 2:
            raise InputError(f"expected a polygon of 3 or more points (x, y), got {len(polygon)} numbers")
        xs, ys = polygon[::2], polygon[1::2]
        for axis, side, values in (("x", width, xs), ("y", height, ys)):
            for value in values:
                # Points outside the image are common and are clipped; NaN fails every comparison.
                if type(value) not in (int, float) or not -side <= value <= 2 * side:
                    raise InputError(
                        f"expected numbers from {-side} to {2 * side} for {axis}, got {reprlib.repr(value)}"
                    )
        edges = zip(xs, ys, [*xs[1:], xs[0]], [*ys[1:], ys[0]], strict=True)
        outline += sum(max(abs(x - to_x), abs(y - to_y)) + 1 for x, y, to_x, to_y in edges)
        if outline > _MAX_OUTLINE:
            raise InputError(f"expected at most {_MAX_OUTLINE:,} pixels along the outlines, got more")
    if outlines + outline > _MAX_OUTLINES:
        raise InputError(f"expected at most {_MAX_OUTLINES:,} pixels along all outlines of an image")
    return outlines + outline


def _fill_polygons(polygons: list[Any], height: int, width: int) -> npt.NDArray[np.bool_]:
    from pycocotools import mask

    encoded = mask.frPyObjects(polygons, height, width)
    while len(encoded) > 1:  # in pairs: merging a list at once passes over the result again for each polygon
        encoded = [mask.merge(encoded[i : i + 2]) for i in range(0, len(encoded), 2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of pycocotools, about numpy 2
        region: npt.NDArray[np.bool_] = mask.decode(encoded[0]) > 0
    return region


def _decode_runs(segmentation: Any, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Mask [height, width] of run lengths, column by column, alternately outside and inside.

    Raises:
        InputError: the run lengths do not cover the image exactly.
    """
    if not isinstance(segmentation, dict):
        raise InputError(f"expected polygons or run lengths as segmentation, got {reprlib.repr(segmentation)}")
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, list) or not all(map(is_integer, size)) or size != [height, width]:
        raise InputError(f"expected run lengths of the image's size [{height}, {width}], got {reprlib.repr(size)}")
    if isinstance(counts, str):
        counts = decompress_counts(counts).tolist()
    if not isinstance(counts, list):
        raise InputError(f"expected counts as a list or a string, got {reprlib.repr(counts)}")
    pixels = height * width
    for count in counts:
        if not is_integer(count) or not 0 <= count <= pixels:
            raise InputError(f"expected counts from 0 to {pixels:,}, got {reprlib.repr(count)}")
    if sum(counts) != pixels:
        raise InputError(f"expected counts with a sum of {pixels:,} pixels, got {sum(counts):,}")
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(width, height).T
