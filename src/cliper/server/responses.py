"""Results as JSON, also for X-AnyLabeling, and class maps to and from 16 bit."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import numpy.typing as npt

from cliper.errors import InputError
from cliper.formats.coco_rle import encode_coco_rle
from cliper.formats.label_png import encode_label_png
from cliper.formats.polygons import region_polygon
from cliper.formats.regions import find_regions
from cliper.result import Segmentation
from cliper.server.models import ServedModel
from cliper.server.schemas import MapStack, SegmentRequest, XAnyLabelingPredict
from cliper.server.service import Prediction

__all__ = ["decode_maps", "encode_maps", "segment_response", "shapes_response"]

_THRESHOLDS = ("score_threshold", "background_threshold", "normalize")


def segment_response(model: ServedModel, prediction: Prediction, request: SegmentRequest) -> dict[str, Any]:
    """As :class:`cliper.server.schemas.SegmentResponse` describes it. Blocks: call it in a thread."""
    result, seconds = prediction
    rows = zip(result.classes, result.confidence.tolist(), result.areas.values(), strict=True)
    return {
        "model": model.name,
        "refiner": None if result.refiner is None else model.refiner,
        "width": result.image.width,
        "height": result.image.height,
        "classes": [
            {"label": label, "name": name, "confidence": confidence, "area": area}
            for label, (name, confidence, area) in enumerate(rows, start=1)
        ],
        "thresholds": {name: getattr(result.settings, name) for name in _THRESHOLDS},
        "seconds": round(seconds, 4),
        **_output(result, request),
    }


def _output(result: Segmentation, request: SegmentRequest) -> dict[str, Any]:
    labels = result.labels
    if request.output == "polygons":
        return {"polygons": _polygons(result, request.tolerance)}
    if request.output == "png":
        return {"png": _base64(encode_label_png(labels, max_label=len(result.classes)))}
    if request.output == "maps":
        fused = None if result.refiner is None else encode_maps(result.maps)
        return {"maps": {"refined": encode_maps(result.refined), "fused": fused}}
    found = [label for label in np.unique(labels).tolist() if label]
    return {"masks": [{"label": label, "rle": encode_coco_rle(labels == label)} for label in found]}


def _polygons(result: Segmentation, tolerance: float) -> list[dict[str, Any]]:
    return [
        {"label": one.label, "area": one.area, "points": region_polygon(one, tolerance).tolist()}
        for one in find_regions(result.labels)
    ]


def shapes_response(result: Segmentation, request: XAnyLabelingPredict) -> dict[str, Any]:
    """A polygon for each connected region, for X-AnyLabeling. Blocks: call it in a thread."""
    polygons = _polygons(result, request.params.epsilon_factor * (result.image.width + result.image.height))
    scores = np.minimum(result.confidence, 1).tolist()
    shapes = [
        {"shape_type": "polygon", "label": result.classes[label], "score": scores[label], "points": one["points"]}
        for one in polygons
        for label in [one["label"] - 1]
    ]
    return {"success": True, "data": {"shapes": shapes, "description": ""}}


def encode_maps(maps: npt.NDArray[np.float32]) -> dict[str, Any]:
    """Class maps [C, h, w] as :class:`cliper.server.schemas.MapStack`: each class quantised between its extremes."""
    low, high = maps.min((1, 2)), maps.max((1, 2))
    spread = np.where(high > low, high - low, 1)[:, None, None]
    integers = np.rint((maps - low[:, None, None]) / spread * 65535).astype("<u2")
    _, height, width = maps.shape
    extremes = {"low": low.tolist(), "high": high.tolist()}
    return {"height": height, "width": width, **extremes, "data": _base64(integers.tobytes())}


def decode_maps(stack: MapStack, classes: int) -> npt.NDArray[np.float32]:
    """The inverse of :func:`encode_maps`: [C, h, w] of a client, in which C must be ``classes``.

    Raises:
        InputError: a size that does not fit.
    """
    expected = classes * stack.height * stack.width * 2
    if len(stack.low) != classes or len(stack.high) != classes or len(stack.data) != expected:
        raise InputError(f"maps: expected {classes} classes and {expected} bytes, got others")
    low = np.array(stack.low, np.float32)[:, None, None]
    high = np.array(stack.high, np.float32)[:, None, None]
    integers = np.frombuffer(stack.data, "<u2").reshape(classes, stack.height, stack.width)
    maps: npt.NDArray[np.float32] = low + (high - low) * (integers.astype(np.float32) / np.float32(65535))
    return maps


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
