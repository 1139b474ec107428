"""Results as JSON."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from cliper.formats.coco_rle import encode_coco_rle
from cliper.formats.label_png import encode_label_png
from cliper.formats.polygons import region_polygon
from cliper.formats.regions import find_regions
from cliper.result import Segmentation
from cliper.web.service.line import Done
from cliper.web.service.schema import Wishes
from cliper.web.service.served import Served

__all__ = ["answer"]


def answer(served: Served, done: Done, wishes: Wishes) -> dict[str, Any]:
    """As :class:`cliper.web.service.schema.SegmentAnswer` describes it. Takes a while: not for an event loop."""
    result = done.result
    areas, confidence = result.areas, result.confidence.tolist()
    common: dict[str, Any] = {
        "model": served.name,
        "refiner": None if result.refiner is None else served.refiner,
        "width": result.image.width,
        "height": result.image.height,
        "classes": [
            {"label": label, "name": name, "confidence": value, "area": areas[name]}
            for label, (name, value) in enumerate(zip(result.classes, confidence, strict=True), start=1)
        ],
        "seconds": round(done.seconds, 4),
    }
    if wishes.format == "polygons":
        return {**common, "polygons": _polygons(result, wishes.tolerance)}
    if wishes.format == "png":
        return {**common, "png": _png(result)}
    return {**common, "masks": _masks(result)}


def _masks(result: Segmentation) -> list[dict[str, Any]]:
    labels = result.labels
    return [{"label": int(label), "rle": encode_coco_rle(labels == label)} for label in np.unique(labels) if label]


def _polygons(result: Segmentation, tolerance: float) -> list[dict[str, Any]]:
    return [
        {"label": region.label, "area": region.area, "points": region_polygon(region, tolerance).tolist()}
        for region in find_regions(result.labels)
    ]


def _png(result: Segmentation) -> str:
    return base64.b64encode(encode_label_png(result.labels, max_label=len(result.classes))).decode("ascii")
