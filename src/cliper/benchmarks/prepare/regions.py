"""Label maps from COCO's annotations: polygons, and run lengths plain or compressed.

Input is untrusted. pycocotools is C code that trusts its input (a coordinate of 1e9 overruns its memory, NaN and
missing numbers disappear), so everything is checked here first, and run lengths do not reach it at all.
"""

from __future__ import annotations

import reprlib
import warnings
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from cliper.errors import ImageError, InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Annotation", "check_image_size", "group_annotations", "is_integer", "rasterize"]

# Bounds on time and memory. COCO's and PASCAL-Context's own annotations stay below a hundredth of each.
_MAX_POLYGONS = 10_000  # of one annotation: they are merged one by one
_MAX_OUTLINE = 1_000_000  # pixels along the polygons of one annotation: pycocotools takes 80 bytes for each
_MAX_OUTLINES = 100_000_000  # of all annotations of one image
_MAX_PAINTED = 10**10  # annotations of one image times its pixels

_HINT = "; fetch the file again, or correct it"


@dataclass(frozen=True)
class Annotation:
    """One annotation as the file has it, nothing checked.

    Args:
        name: ``"annotation 17"``, for messages.
        category: id of its class.
        segmentation: polygons or run lengths.
    """

    name: str
    category: Any
    segmentation: Any


def group_annotations(
    items: Any, key: str, source: str, images: Container[int]
) -> tuple[Mapping[int, Sequence[Annotation]], list[str]]:
    """Annotations by the id of their image, in the order of the file.

    Args:
        items: what the file has under ``key``.
        key: ``"annotations"``.
        source: the file, for messages.
        images: ids of the images that are asked for; annotations of others are left out.

    Returns:
        The annotations, and a line for each that names no image.

    Raises:
        TypeError: ``items`` is not a list.
    """
    if not isinstance(items, list):
        raise TypeError(f"{key} is no list")
    grouped: dict[int, list[Annotation]] = defaultdict(list)
    problems = []
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            problems.append(f"{source}: {key}[{index}]: expected an annotation, got {reprlib.repr(item)}{_HINT}")
            continue
        number = item.get("id")
        name = f"annotation {number}" if is_integer(number) else f"{key}[{index}]"
        image = item.get("image_id")
        if not is_integer(image):
            problems.append(
                f"{source}: {name}: expected the id of its image as image_id, got {reprlib.repr(image)}{_HINT}"
            )
        elif image in images:
            grouped[image].append(Annotation(name, item.get("category_id"), item.get("segmentation")))
    return grouped, problems


def rasterize(
    title: str, height: Any, width: Any, annotations: Iterable[Annotation], labels: Mapping[int, int]
) -> npt.NDArray[np.uint8]:
    """Paint annotations in the order given, a later one over an earlier one; crowds are not told from objects.

    Args:
        title: file and image, for messages.
        height: of the image, as the file says.
        width: of the image, likewise.
        annotations: of the image.
        labels: category id -> label, 0 to 255.

    Returns:
        Labels [height, width] uint8, 0 where there is no annotation.

    Raises:
        ImageError: the size is no size, or an annotation cannot be painted; the message names both.
    """
    import numpy as np

    from cliper.decoding import check_pixels
    from cliper.images import MAX_PIXELS

    for name, side in (("height", height), ("width", width)):
        if not is_integer(side) or not 1 <= side <= MAX_PIXELS:
            raise ImageError(f"{title}: expected its {name} as an integer from 1 on, got {reprlib.repr(side)}{_HINT}")
    check_pixels((width, height), MAX_PIXELS, title)
    annotations = list(annotations)
    if len(annotations) * height * width > _MAX_PAINTED:
        raise ImageError(
            f"{title}: expected at most {_MAX_PAINTED:.0e} pixels in all of its annotations together, got "
            f"{len(annotations):,} annotations in an image of {width}x{height}{_HINT}"
        )
    painted = np.zeros((height, width), np.uint8)
    outlines = 0.0
    for item in annotations:
        try:
            if not is_integer(item.category) or item.category not in labels:
                raise InputError(f"expected one of the {len(labels)} category ids, got {reprlib.repr(item.category)}")
            if isinstance(item.segmentation, list):
                outlines += _check_polygons(item.segmentation, height, width)
                if outlines > _MAX_OUTLINES:
                    raise InputError(f"expected at most {_MAX_OUTLINES:,} pixels along all outlines of an image")
                region = _fill_polygons(item.segmentation, height, width)
            else:
                region = _expand_runs(item.segmentation, height, width)
        except InputError as error:
            raise ImageError(f"{title}, {item.name}: {error}{_HINT}") from None
        painted[region] = labels[item.category]
    return painted


def check_image_size(title: str, height: Any, width: Any, path: Path) -> None:
    """Compare a size with that of the image's own file, where there is a JPEG that can be read.

    Raises:
        ImageError: the two differ.
    """
    from PIL import Image

    from cliper.decoding import shown_path

    try:
        if not path.is_file():
            return
        with Image.open(path, formats=["JPEG"]) as image:  # reads the header only
            size = image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return  # whether images are whole is asked by `cliper data verify`
    if size != (width, height):
        raise ImageError(
            f"{title}: expected the size {size[0]}x{size[1]} of {shown_path(path)}, got "
            f"{reprlib.repr(width)}x{reprlib.repr(height)}{_HINT}"
        )


def is_integer(value: Any) -> TypeGuard[int]:
    """Whether a value from a json file is an integer; ``true`` is none."""
    return type(value) is int


def _check_polygons(polygons: list[Any], height: int, width: int) -> float:
    """Length of all outlines, in pixels.

    Raises:
        InputError: polygons that pycocotools could not draw, or not as they are meant.
    """
    if not 1 <= len(polygons) <= _MAX_POLYGONS:
        raise InputError(f"expected 1 to {_MAX_POLYGONS:,} polygons, got {len(polygons):,}")
    outline = 0.0
    for polygon in polygons:
        if not isinstance(polygon, list):
            raise InputError(f"expected a polygon [x, y, x, y, ...], got {reprlib.repr(polygon)}")
        if len(polygon) < 6 or len(polygon) % 2:
            raise InputError(f"expected a polygon of 3 or more points (x, y), got {len(polygon)} numbers")
        for axis, side, values in (("x", width, polygon[::2]), ("y", height, polygon[1::2])):
            for value in values:
                # Points outside the image are usual and are cut off; NaN passes no comparison.
                if type(value) not in (int, float) or not -side <= value <= 2 * side:
                    raise InputError(
                        f"expected numbers from {-side} to {2 * side} for {axis}, got {reprlib.repr(value)}"
                    )
        xs, ys = polygon[::2], polygon[1::2]
        edges = zip(xs, ys, [*xs[1:], xs[0]], [*ys[1:], ys[0]], strict=True)
        outline += sum(max(abs(x - to_x), abs(y - to_y)) + 1 for x, y, to_x, to_y in edges)
        if outline > _MAX_OUTLINE:
            raise InputError(f"expected at most {_MAX_OUTLINE:,} pixels along its outlines, got more")
    return outline


def _fill_polygons(polygons: list[Any], height: int, width: int) -> npt.NDArray[np.bool_]:
    from pycocotools import mask

    encoded = mask.merge(mask.frPyObjects(polygons, height, width))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its own, about numpy 2
        region: npt.NDArray[np.bool_] = mask.decode(encoded) > 0
    return region


def _expand_runs(segmentation: Any, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Run lengths, down each column in turn, alternately outside and inside.

    Raises:
        InputError: they do not cover the image exactly.
    """
    import numpy as np

    from cliper.formats.coco_rle import decompress_counts

    if not isinstance(segmentation, dict):
        raise InputError(f"expected polygons or run lengths as its segmentation, got {reprlib.repr(segmentation)}")
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, list) or not all(map(is_integer, size)) or size != [height, width]:
        raise InputError(f"expected run lengths of the image's size [{height}, {width}], got {reprlib.repr(size)}")
    if isinstance(counts, str):
        runs = decompress_counts(counts)
    elif isinstance(counts, list):
        for count in counts:
            if not is_integer(count) or not 0 <= count <= height * width:
                raise InputError(f"expected counts from 0 to {height * width:,}, got {reprlib.repr(count)}")
        runs = np.array(counts, np.int64)
    else:
        raise InputError(f"expected counts as a list or a text, got {reprlib.repr(counts)}")
    if runs.size and (runs.min() < 0 or runs.max() > height * width):
        raise InputError(f"expected counts from 0 to {height * width:,}, got {runs.min():,} to {runs.max():,}")
    if runs.sum() != height * width:
        raise InputError(f"expected counts of {height * width:,} pixels together, got {runs.sum():,}")
    inside = np.arange(runs.size) % 2 == 1
    return np.repeat(inside, runs).reshape(width, height).T
