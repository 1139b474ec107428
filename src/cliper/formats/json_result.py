"""Parts of a result as JSON values, and back: masks, polygons, and class maps in 16 bit. What is read is untrusted."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cliper.errors import InputError
from cliper.formats.coco_rle import decompress_counts, encode_coco_rle
from cliper.formats.polygons import region_polygon
from cliper.formats.regions import DEFAULT_MIN_AREA, class_regions, find_regions

__all__ = ["decode_maps", "decode_masks", "encode_maps", "encode_masks", "encode_polygons"]


def encode_masks(labels: npt.NDArray[Any]) -> list[dict[str, Any]]:
    """The mask of each label of [H, W] integers that occurs, but not of 0: ``label`` and ``rle``, COCO's RLE.

    Example:
        >>> encode_masks(np.array([[0, 2], [2, 2]]))
        [{'label': 2, 'rle': {'size': [2, 2], 'counts': '13'}}]
    """
    height, width = labels.shape
    return [
        {"label": one.label, "rle": encode_coco_rle(one.mask, left=one.left, top=one.top, size=(height, width))}
        for one in class_regions(labels)
    ]


def decode_masks(masks: Sequence[Mapping[str, Any]], size: tuple[int, int], classes: int) -> npt.NDArray[np.int32]:
    """The inverse of :func:`encode_masks`; of masks that overlap the later one is on top.

    Args:
        masks: of :func:`encode_masks`.
        size: (height, width) of the label map.
        classes: largest label that is allowed.

    Returns:
        [H, W] int32.

    Raises:
        InputError: a mask of another size, a label out of range, or damaged run lengths.
    """
    height, width = size
    labels = np.zeros(width * height, np.int32)
    for mask in masks:
        counts = decompress_counts(mask["rle"]["counts"])
        fits = mask["rle"]["size"] == [height, width] and (counts >= 0).all() and counts.sum() <= labels.size
        if not fits or not 1 <= mask["label"] <= classes:
            raise InputError(f"masks: expected size [{height}, {width}] and labels from 1 to {classes}, got others")
        inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        labels[: len(inside)][inside] = mask["label"]
    return labels.reshape(width, height).T.copy()


def encode_polygons(
    labels: npt.NDArray[Any], tolerance: float = 0.0, min_area: int | str = DEFAULT_MIN_AREA
) -> list[dict[str, Any]]:
    """A polygon for each connected region of [H, W] integers: ``label``, ``area`` in pixels, and ``points`` [x, y].

    Args:
        labels: 0 is background.
        tolerance: largest distance of the polygon from the exact border, in pixels.
        min_area: smaller regions are left out; pixels, or a share of the image.

    Example:
        >>> encode_polygons(np.array([[0, 2], [0, 0]]))
        [{'label': 2, 'area': 1, 'points': [[1, 0], [2, 0], [2, 1], [1, 1]]}]
    """
    return [
        {"label": one.label, "area": one.area, "points": region_polygon(one, tolerance).tolist()}
        for one in find_regions(labels, min_area)
    ]


def encode_maps(maps: npt.NDArray[np.float32]) -> dict[str, Any]:
    """Class maps in 16 bit: the value of class c is ``low[c] + (high[c] - low[c]) * integer / 65535``.

    Args:
        maps: [C, h, w] float32.

    Returns:
        ``height``, ``width``, ``low`` and ``high``, C numbers each, and ``data``, the integers as little-endian
        uint16 in base64, class by class, row by row.
    """
    low, high = maps.min((1, 2)), maps.max((1, 2))
    spread = np.where(high > low, high - low, 1)[:, None, None]
    integers = np.rint((maps - low[:, None, None]) / spread * 65535).astype("<u2")
    _, height, width = maps.shape
    data = base64.b64encode(integers.tobytes()).decode("ascii")
    return {"height": height, "width": width, "low": low.tolist(), "high": high.tolist(), "data": data}


def decode_maps(stack: Mapping[str, Any], classes: int) -> npt.NDArray[np.float32]:
    """The inverse of :func:`encode_maps`: [C, h, w] float32, in which C must be ``classes``.

    Raises:
        InputError: data that are not base64, or a size that does not fit.
    """
    height, width = stack["height"], stack["width"]
    try:
        data = base64.b64decode(stack["data"], validate=True)
    except ValueError as error:
        raise InputError(f"maps: expected base64, could not read it ({error})") from None
    expected = classes * height * width * 2
    if len(stack["low"]) != classes or len(stack["high"]) != classes or len(data) != expected:
        raise InputError(f"maps: expected {classes} classes and {expected} bytes, got others")
    low = np.array(stack["low"], np.float32)[:, None, None]
    high = np.array(stack["high"], np.float32)[:, None, None]
    integers = np.frombuffer(data, "<u2").reshape(classes, height, width)
    maps: npt.NDArray[np.float32] = low + (high - low) * (integers.astype(np.float32) / np.float32(65535))
    return maps
