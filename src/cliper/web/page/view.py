"""A result as the browser's viewer takes it: small pictures and numbers, nothing that is markup.

The picture and the class maps are sent once for each result, labels again whenever a threshold moves. Everything
else, opacity, classes switched off, heatmaps, comparing, reading off the class below the pointer, is done there.
"""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cliper.formats import voc_palette
from cliper.result import Segmentation

__all__ = ["SHEET", "SIDE", "colours", "labels_view", "scene_view", "shown", "tiled"]

SIDE = 1280
"""Longest side, in pixels, of what is shown; files that are downloaded have the picture's own size."""

SHEET = 4096
"""Longest side, in pixels, of a picture that holds class maps: Safari's canvas takes 4096 x 4096 pixels at most."""


def colours(count: int) -> list[str]:
    """Of the first ``count`` classes, as ``#rrggbb``: the same that saved label maps and overlays have."""
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in voc_palette(count + 1)[1:].tolist()]


def shown(result: Segmentation) -> Segmentation:
    """The result for a picture of at most :data:`SIDE` pixels: its labels come from the same maps, in less time."""
    factor = SIDE / max(result.image.size)
    if factor >= 1:
        return result
    width, height = (max(1, round(side * factor)) for side in result.image.size)
    return replace(result, image=result.image.resize((width, height))).relabel()


def tiled(maps: npt.NDArray[np.uint8]) -> tuple[list[npt.NDArray[np.uint8]], int, int]:
    """Maps side by side in rows, on as few sheets as hold them; a browser reads none that is too large for a canvas.

    Args:
        maps: [C, h, w], C at least 1.

    Returns:
        The sheets, and how many columns and rows one has. Map ``c`` is on sheet ``c // (columns * rows)``, row by row.
        A sheet is at most :data:`SHEET` pixels wide and high, unless a single map is more; the last one has only the
        rows that it needs.
    """
    count, height, width = maps.shape
    columns = min(count, max(1, SHEET // width))
    rows = min(-(-count // columns), max(1, SHEET // height))
    sheets = []
    for first in range(0, count, columns * rows):
        some = maps[first : first + columns * rows]
        used = -(-len(some) // columns)
        grid = np.zeros((used * columns, height, width), np.uint8)
        grid[: len(some)] = some
        lines = grid.reshape(used, columns, height, width).transpose(0, 2, 1, 3)
        sheets.append(np.ascontiguousarray(lines.reshape(used * height, columns * width)))
    return sheets, columns, rows


def scene_view(result: Segmentation) -> dict[str, Any]:
    """What stays the same while thresholds move.

    Args:
        result: as :func:`shown` gives it.

    Returns:
        ``picture`` (a JPEG), ``width`` and ``height`` of what is shown, ``classes``
        (``name``, ``colour``, ``confidence``), ``heat`` (``refined`` and ``fused``, the latter None without a
        refiner): ``sheets``, ``columns`` and ``rows`` of :func:`tiled`, ``width`` and ``height`` of a map, ``peaks``
        (each class's highest value).
    """
    rows = zip(result.classes, colours(len(result.classes)), result.confidence.tolist(), strict=True)
    return {
        "picture": _uri(result.image, "JPEG", quality=88),
        "width": result.image.width,
        "height": result.image.height,
        "classes": [{"name": name, "colour": colour, "confidence": value} for name, colour, value in rows],
        "heat": {
            "refined": _heat(result.refined),
            "fused": None if result.refiner is None else _heat(result.maps),
        },
    }


def labels_view(result: Segmentation) -> dict[str, Any]:
    """What changes with the thresholds.

    Args:
        result: as :func:`shown` gives it, at these thresholds.

    Returns:
        ``labels`` (a grey PNG whose values are the labels), ``fused`` (the same of the maps before refinement, None
        without a refiner), ``areas`` (shares of the picture, by class), ``background`` (the rest), and the thresholds:
        ``score``, ``threshold`` (of the background).
    """
    areas = list(result.areas.values())
    return {
        "labels": _label_uri(result.labels),
        "fused": None if result.refiner is None else _label_uri(_fused(result).labels),
        "areas": areas,
        "background": max(0.0, 1.0 - sum(areas)),
        "score": result.settings.score_threshold,
        "threshold": result.settings.background_threshold,
    }


def _fused(result: Segmentation) -> Segmentation:
    """The same picture before refinement, at the same thresholds."""
    return replace(result, refined=result.maps).relabel()


def _label_uri(labels: npt.NDArray[np.int32]) -> str:
    return _uri(Image.fromarray(labels.astype(np.uint8)), "PNG", compress_level=3)


def _heat(maps: npt.NDArray[np.float32]) -> dict[str, Any]:
    """Each class's map from 0 to its own maximum, on grey sheets; see :func:`tiled`."""
    peaks = maps.max((1, 2)).clip(min=0)
    scaled = maps.clip(min=0) / np.where(peaks > 0, peaks, 1)[:, None, None]
    grey = np.rint(scaled * 255).astype(np.uint8)
    sheets, columns, rows = tiled(grey)
    _, height, width = grey.shape
    return {
        "sheets": [_uri(Image.fromarray(sheet), "PNG", compress_level=3) for sheet in sheets],
        "columns": columns,
        "rows": rows,
        "width": width,
        "height": height,
        "peaks": peaks.tolist(),
    }


def _uri(image: Image.Image, kind: str, **how: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **how)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
