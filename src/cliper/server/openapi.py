"""The OpenAPI document, where FastAPI cannot derive it: bodies are read by hand, within limits."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from cliper.server.schemas import ErrorResponse

__all__ = ["describe_bodies", "errors", "request_body"]

_TEMPLATE = "#/components/schemas/{model}"
_STATUSES = (400, 401, 403, 404, 408, 413, 415, 422, 429, 503, 504)  # docs/server.md says when


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Error responses of an operation; all of them by default."""
    return {status: {"model": ErrorResponse} for status in statuses or _STATUSES}


def request_body(json: type[BaseModel], form: type[BaseModel] | None = None) -> dict[str, Any]:
    """The body of an operation as JSON, and as a form; for ``openapi_extra``."""
    content: dict[str, Any] = {"application/json": {"schema": {"$ref": _TEMPLATE.format(model=json.__name__)}}}
    if form is not None:
        content["multipart/form-data"] = {
            "schema": {"$ref": _TEMPLATE.format(model=form.__name__)},
            "encoding": {
                "image": {"contentType": "application/octet-stream"},
                "settings": {"contentType": "application/json"},
            },
        }
    return {"requestBody": {"required": True, "content": content}}


def describe_bodies(app: FastAPI, *models: type[BaseModel]) -> None:
    """Set the app's document: the routes, and the schemas of the bodies that :func:`request_body` refers to."""
    description = "Open-vocabulary semantic segmentation: an image and words in, masks out."
    document = get_openapi(title=app.title, version=app.version, description=description, routes=app.routes)
    _, found = models_json_schema([(model, "validation") for model in models], ref_template=_TEMPLATE)
    document.setdefault("components", {}).setdefault("schemas", {}).update(found["$defs"])
    app.openapi = lambda: document  # type: ignore[method-assign]
