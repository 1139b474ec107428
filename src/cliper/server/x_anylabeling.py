"""The remote server protocol of X-AnyLabeling: an image and a text prompt in, polygons out."""

from __future__ import annotations

import re
from typing import Any

from cliper.formats.polygons import region_polygon
from cliper.formats.regions import find_regions
from cliper.server.batcher import Prediction
from cliper.server.label_studio import decode_data_uri
from cliper.server.models import ServedModel
from cliper.server.parsing import decode_base64, validate
from cliper.server.request import SegmentRequest, build_request
from cliper.server.schemas import SegmentParams, XAnyLabelingPredict

__all__ = ["build_x_anylabeling_request", "describe_model", "shapes_response"]


def describe_model(model: ServedModel) -> dict[str, Any]:
    """The value of ``data`` in ``GET /v1/models``: model -> how X-AnyLabeling shows it."""
    values: dict[str, Any] = {"mask_fineness_slider": 10, "toggle_preserve_existing_annotations": False}
    values["edit_conf"] = model.settings.score_threshold
    names = ("edit_text", "button_send", "input_conf", "mask_fineness_value_label", *values)
    widgets = [{"name": name, "value": values.get(name)} for name in names]
    described = {"display_name": f"CLIPer {model.name}", "widgets": widgets, "params": {}}
    return {model.name: {**described, "batch_processing_mode": "text_prompt"}}


def build_x_anylabeling_request(model: ServedModel, values: XAnyLabelingPredict) -> SegmentRequest:
    """The request; classes are separated by a full stop, comma or semicolon. Blocks: call it in a thread.

    Raises:
        HTTPError: as :func:`cliper.server.request.build_request`.
    """
    classes = [name.strip() for name in re.split(r"[.,;]", values.params.text_prompt) if name.strip()]
    settings = {"score_threshold": values.params.conf_threshold} if values.params.conf_threshold else {}
    params = validate(SegmentParams, {"classes": classes, "settings": settings, "model": values.model})
    image = decode_data_uri(values.image) or decode_base64(values.image, "image")
    return build_request(model, image, params)


def shapes_response(prediction: Prediction, values: XAnyLabelingPredict) -> dict[str, Any]:
    """A polygon for each connected region, labelled with its class. Blocks: call it in a thread."""
    result = prediction.result
    tolerance = values.params.epsilon_factor * (result.image.width + result.image.height)
    shapes = [
        {
            "label": result.classes[region.label - 1],
            "shape_type": "polygon",
            "points": region_polygon(region, tolerance).tolist(),
            "score": min(1.0, float(result.confidence[region.label - 1])),
        }
        for region in find_regions(result.labels)
    ]
    return {"success": True, "data": {"shapes": shapes, "description": ""}}
