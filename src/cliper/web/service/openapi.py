"""The service's own description of itself, where FastAPI cannot know it: bodies are read by hand, with limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from cliper.web.service import schema

__all__ = ["body_of", "describe", "problems"]

_PLACE = "#/components/schemas/{model}"

_REASONS = {
    400: "The body is broken: no JSON, no base64, no whole form.",
    401: "The token is missing or another.",
    404: "Another model than the one that is served.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is of another kind.",
    422: "What is asked cannot be done: the picture, classes or settings.",
    429: "Too many requests are inside; ask again after Retry-After seconds.",
    503: "Memory ran out, or the service is stopping; ask again after Retry-After seconds.",
    504: "The time for a request is over.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The answers of an operation other than 200."""
    return {status: {"model": schema.Problem, "description": _REASONS[status]} for status in statuses}


def body_of(kinds: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """The body of an operation: content type -> what it holds. For ``openapi_extra``."""
    content: dict[str, Any] = {
        kind: {"schema": {"$ref": _PLACE.format(model=model.__name__)}} for kind, model in kinds.items()
    }
    if "multipart/form-data" in content:
        content["multipart/form-data"]["encoding"] = {
            "image": {"contentType": "application/octet-stream"},
            "settings": {"contentType": "application/json"},
        }
    return {"requestBody": {"required": True, "content": content}}


def describe(app: FastAPI, *, classes: int, token: bool) -> dict[str, Any]:
    """The whole description.

    Args:
        app: whose routes are there.
        classes: of a request, at most.
        token: whether one is wanted.
    """
    whole = get_openapi(
        title=app.title,
        version=app.version,
        description="Open-vocabulary semantic segmentation: a picture and words in, masks out.",
        routes=app.routes,
    )
    taken = (schema.SegmentJson, schema.SegmentForm, schema.LabelStudioPredict, schema.LabelStudioSetup)
    _, found = models_json_schema([(model, "validation") for model in taken], ref_template=_PLACE)
    schemas = whole.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(found["$defs"])
    for name in ("SegmentJson", "SegmentForm"):
        for field in ("classes", "background"):
            for choice in schemas[name]["properties"][field]["anyOf"]:
                if choice.get("type") == "array":
                    choice["maxItems"] = classes
    if token:
        whole["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "password": {"type": "http", "scheme": "basic", "description": "The token is the password."},
        }
        for path in whole["paths"].values():
            for operation in path.values():
                if "401" in operation["responses"]:
                    operation["security"] = [{"bearer": []}, {"password": []}]
    return whole
