"""Results as JSON, in X-AnyLabeling's form, and as files of any format. Everything here blocks: call it in a thread."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cliper.errors import InputError
from cliper.formats import Format, FormatOptions, find_format
from cliper.formats.archive import pack_results
from cliper.formats.base import bounded_confidence
from cliper.formats.json_result import decode_maps, decode_masks, encode_maps, encode_masks, encode_polygons
from cliper.formats.label_png import encode_label_png
from cliper.prompts import parse_classes
from cliper.result import Segmentation
from cliper.server.models import ServedModel
from cliper.server.schemas import ExportImage, ExportRequest, SegmentRequest, XAnyLabelingPredict
from cliper.server.service import Prediction

__all__ = ["segment_response", "shapes_response", "write_export"]


def segment_response(model: ServedModel, prediction: Prediction, request: SegmentRequest, notes: list[str]) -> Any:
    """As :class:`cliper.server.schemas.SegmentResponse` describes it."""
    result, seconds = prediction
    score, low = result.settings.thresholds()
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
        "thresholds": {"score_threshold": score, "background_threshold": low, "normalize": result.settings.normalize},
        "notes": [*notes, *model.taught.notes(parse_classes(request.classes))],
        "seconds": round(seconds, 4),
        **_output(result, request),
    }


def _output(result: Segmentation, request: SegmentRequest) -> dict[str, Any]:
    if request.output == "polygons":
        return {"polygons": encode_polygons(result.labels, request.tolerance)}
    if request.output == "png":
        file = encode_label_png(result.labels, max_label=len(result.classes), classes=result.classes)
        return {"png": base64.b64encode(file).decode("ascii")}
    if request.output == "maps":
        fused = None if np.array_equal(result.maps, result.refined) else encode_maps(result.maps)
        return {"maps": {"refined": encode_maps(result.refined), "fused": fused}}
    return {"masks": encode_masks(result.labels)}


def shapes_response(result: Segmentation, request: XAnyLabelingPredict) -> dict[str, Any]:
    """A polygon for each connected region, for X-AnyLabeling."""
    tolerance = request.params.epsilon_factor * (result.image.width + result.image.height)
    scores = bounded_confidence(result.confidence).tolist()
    shapes = [
        {"shape_type": "polygon", "label": result.classes[label], "score": scores[label], "points": one["points"]}
        for one in encode_polygons(result.labels, tolerance)
        for label in [one["label"] - 1]
    ]
    return {"success": True, "data": {"shapes": shapes, "description": ""}}


def write_export(model: ServedModel, export: ExportRequest) -> tuple[bytes, str, str]:
    """Maps or masks of a client in a format: content, file name and media type of a file, or of a zip of several.

    Raises:
        InputError: a format that does not exist or cannot represent the classes, an image that cannot be used, or maps
            or masks that do not fit.
    """
    chosen, options, limits = find_format(export.format), FormatOptions(tolerance=export.tolerance), model.limits
    if len(export.images) > limits.tasks or len(export.classes) > limits.classes:
        raise InputError(f"expected at most {limits.tasks} images and {limits.classes} classes, got more")
    # The last part of a path, with characters that no file system objects to.
    lasts = [re.sub(r"[^\w .()+-]", "_", re.split(r"[/\\]", image.name)[-1]) for image in export.images]
    names = [last[-120:].strip(" .") or "image" for last in lasts]
    if len({Path(name).stem.casefold() for name in names}) < len(names):
        raise InputError("images: expected names that differ before the suffix, got two alike; rename one")
    results = (_segmentation(model, export, image, chosen) for image in export.images)
    return pack_results(chosen, zip(names, results, strict=True), export.classes, options)


def _segmentation(model: ServedModel, export: ExportRequest, image: ExportImage, format: Format) -> Segmentation:
    import torch

    size, classes = (image.width, image.height), len(export.classes)
    model.check_labels(size, classes)
    if image.image is None and format.shows_image:
        raise InputError(f"image: expected an image, because format {format.name} shows it; send one")
    pixels = Image.new("RGB", size) if image.image is None else model.decode(image.image)
    if pixels.size != size:
        raise InputError(f"image: expected {size[0]}x{size[1]} pixels, got {pixels.width}x{pixels.height}")
    settings = model.settings
    if export.thresholds is not None:  # those in effect, which the sensitivity has moved
        settings = settings.replace(**export.thresholds.model_dump(), sensitivity=0.5)
    about: dict[str, Any] = {"settings": settings, "model": model.name, "refiner": model.refiner}
    if image.maps is not None and image.masks is None:
        refined = torch.from_numpy(decode_maps(image.maps.refined.model_dump(), classes))
        fused = image.maps.fused
        maps = refined if fused is None else torch.from_numpy(decode_maps(fused.model_dump(), classes))
        result = Segmentation.from_maps(pixels, export.classes, maps, refined, **about)
    elif image.masks is not None and image.maps is None and format.name != "npz":
        masks, names, empty = image.masks, tuple(export.classes), np.zeros((classes, 1, 1), np.float32)
        labels = decode_masks([one.model_dump() for one in masks], (image.height, image.width), classes)
        result = Segmentation(pixels, names, labels, np.ones(classes, np.float32), empty, empty, **about)
    else:
        raise InputError("images: expected maps, or masks for a format other than npz; send one of them")
    return replace(result, labels=np.where(np.isin(result.labels, image.hidden), 0, result.labels))
