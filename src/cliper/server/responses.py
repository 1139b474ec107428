"""Results as JSON, and class maps to and from 16 bit."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import numpy.typing as npt

from cliper.formats.coco_rle import encode_coco_rle
from cliper.formats.label_png import encode_label_png
from cliper.formats.polygons import region_polygon
from cliper.formats.regions import find_regions
from cliper.result import Segmentation
from cliper.server.batcher import Prediction
from cliper.server.errors import HTTPError
from cliper.server.models import ServedModel
from cliper.server.parsing import decode_base64
from cliper.server.schemas import MapStack, SegmentParams

__all__ = ["decode_maps", "encode_maps", "segment_response"]


def segment_response(model: ServedModel, prediction: Prediction, params: SegmentParams) -> dict[str, Any]:
    """As :class:`cliper.server.schemas.SegmentResponse` describes it. Blocks: call it in a thread."""
    result, settings = prediction.result, prediction.result.settings
    areas, confidence = result.areas, result.confidence.tolist()
    common: dict[str, Any] = {
        "model": model.name,
        "refiner": None if result.refiner is None else model.refiner,
        "width": result.image.width,
        "height": result.image.height,
        "classes": [
            {"label": label, "name": name, "confidence": value, "area": areas[name]}
            for label, (name, value) in enumerate(zip(result.classes, confidence, strict=True), start=1)
        ],
        "thresholds": {
            "score_threshold": settings.score_threshold,
            "background_threshold": settings.background_threshold,
            "normalize": settings.normalize,
        },
        "seconds": round(prediction.seconds, 4),
    }
    if params.output == "polygons":
        return {**common, "polygons": _polygons(result, params.tolerance)}
    if params.output == "png":
        return {**common, "png": _base64(encode_label_png(result.labels, max_label=len(result.classes)))}
    if params.output == "maps":
        fused = None if result.refiner is None else encode_maps(result.maps)
        return {**common, "maps": {"refined": encode_maps(result.refined), "fused": fused}}
    return {**common, "masks": _masks(result)}


def encode_maps(maps: npt.NDArray[np.float32]) -> dict[str, Any]:
    """Class maps [C, h, w] as :class:`cliper.server.schemas.MapStack`: each class quantised between its extremes."""
    low, high = maps.min((1, 2)), maps.max((1, 2))
    spread = np.where(high > low, high - low, 1)[:, None, None]
    integers = np.rint((maps - low[:, None, None]) / spread * 65535).astype("<u2")
    height, width = maps.shape[1:]
    return {
        "height": height,
        "width": width,
        "low": low.tolist(),
        "high": high.tolist(),
        "data": _base64(integers.tobytes()),
    }


def decode_maps(stack: MapStack, classes: int) -> npt.NDArray[np.float32]:
    """The inverse of :func:`encode_maps`.

    Args:
        stack: from a client.
        classes: C, the expected number of classes.

    Returns:
        [C, h, w] float32.

    Raises:
        HTTPError: 400 not base64, 422 a size that does not fit.
    """
    data = decode_base64(stack.data, "maps")
    expected = classes * stack.height * stack.width * 2
    if len(stack.low) != classes or len(stack.high) != classes or len(data) != expected:
        raise HTTPError(422, f"maps: expected {classes} classes and {expected} bytes, got others")
    low = np.array(stack.low, np.float32)[:, None, None]
    high = np.array(stack.high, np.float32)[:, None, None]
    integers = np.frombuffer(data, "<u2").reshape(classes, stack.height, stack.width)
    maps: npt.NDArray[np.float32] = low + (high - low) * (integers.astype(np.float32) / np.float32(65535))
    return maps


def _masks(result: Segmentation) -> list[dict[str, Any]]:
    labels = result.labels
    return [{"label": int(label), "rle": encode_coco_rle(labels == label)} for label in np.unique(labels) if label]


def _polygons(result: Segmentation, tolerance: float) -> list[dict[str, Any]]:
    return [
        {"label": region.label, "area": region.area, "points": region_polygon(region, tolerance).tolist()}
        for region in find_regions(result.labels)
    ]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
