"""The addresses of the service."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from cliper.files import dumps
from cliper.web.service import schema
from cliper.web.service.answers import answer
from cliper.web.service.body import read_body, read_json_body
from cliper.web.service.guard import guard
from cliper.web.service.label_studio import model_version, predict
from cliper.web.service.openapi import body_of, describe, problems
from cliper.web.service.parse import parse_json, parse_wishes, validated
from cliper.web.service.refusal import Refusal
from cliper.web.service.service import Service
from cliper.web.service.wire import Wire, ends_of
from cliper.web.service.wish import make_wish

__all__ = ["create_app"]

_JSON, _FORM = "application/json", "multipart/form-data"

_SETUP_BYTES = 4_000_000  # a configuration of a million characters


def create_app(service: Service) -> FastAPI:
    """The service as an ASGI application. There are no pages in it: they would load scripts from elsewhere.

    Args:
        service: has been entered.
    """
    app = FastAPI(title="CLIPer", version=service.served.version, docs_url=None, redoc_url=None, redirect_slashes=False)
    limits = service.served.limits
    app.add_middleware(Wire, service=service)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _no_such_address)
    app.add_exception_handler(Exception, _defect)
    _add_state(app, service)
    _add_segmenting(app, service)
    _add_label_studio(app, service)
    description = describe(app, classes=limits.classes, token=service.token is not None)
    app.openapi = lambda: description  # type: ignore[method-assign]
    return app


def _add_segmenting(app: FastAPI, service: Service) -> None:
    limits = service.served.limits

    @app.post(
        "/v1/segment",
        summary="Segment a picture",
        response_model=schema.SegmentAnswer,
        responses=problems(400, 401, 404, 408, 413, 415, 422, 429, 503, 504),
        openapi_extra=body_of({_JSON: schema.SegmentJson, _FORM: schema.SegmentForm}),
    )
    async def segment(request: Request) -> Response:
        guard(request, service.token)
        turn = ends_of(request).enter_context(service.admit())
        body = await turn.read(read_body(request, limits.body_bytes))
        image, wishes = await turn.code(parse_wishes, body)
        wish = await turn.code(make_wish, service.served, image, wishes)
        del body, image  # what waits holds a picture, not its file too
        done = await turn.segment(wish, request)
        return await turn.code(lambda: _json(answer(service.served, done, wishes)))

    @app.get("/v1/models", summary="What is served", response_model=schema.ModelList, responses=problems(401))
    async def models(request: Request) -> Response:
        guard(request, service.token)
        return _json({"version": service.served.version, "models": [service.served.describe()]})


def _add_state(app: FastAPI, service: Service) -> None:
    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", summary="Whether the process lives", response_model=schema.Health)
    async def healthz() -> Response:
        return _json({"status": "alive"})

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", summary="Whether requests are taken", response_model=schema.Health, responses=problems(503))
    async def readyz() -> Response:
        if service.stopping:
            raise Refusal(503, "this service is stopping")
        return _json({"status": "ready"})

    @app.get(
        "/metrics",
        summary="Numbers for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems(401)},
    )
    async def metrics(request: Request) -> Response:
        guard(request, service.token)
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


def _add_label_studio(app: FastAPI, service: Service) -> None:
    limits = service.served.limits
    tags: list[Any] = ["Label Studio"]

    @app.get(
        "/health",
        summary="Label Studio's health",
        tags=tags,
        response_model=schema.LabelStudioHealth,
        responses=problems(401),
    )
    async def health(request: Request) -> Response:
        guard(request, service.token)
        return _json({"status": "UP", "model_class": "CLIPer"})

    @app.post(
        "/setup",
        summary="Label Studio connects a project",
        tags=tags,
        response_model=schema.LabelStudioVersion,
        responses=problems(400, 401, 408, 413, 415, 422, 429, 503, 504),
        openapi_extra=body_of({_JSON: schema.LabelStudioSetup}),
    )
    async def setup(request: Request) -> Response:
        guard(request, service.token)
        turn = ends_of(request).enter_context(service.admit())
        body = await turn.read(read_json_body(request, min(_SETUP_BYTES, limits.body_bytes)))
        await turn.code(lambda: validated(schema.LabelStudioSetup, parse_json(body)))
        return _json({"model_version": model_version(service)})

    @app.post(
        "/predict",
        summary="Label Studio asks for predictions",
        tags=tags,
        response_model=schema.LabelStudioResults,
        responses=problems(400, 401, 408, 413, 415, 422, 429, 503, 504),
        openapi_extra=body_of({_JSON: schema.LabelStudioPredict}),
    )
    async def label_studio_predict(request: Request) -> Response:
        guard(request, service.token)
        turn = ends_of(request).enter_context(service.admit())
        body = await turn.read(read_json_body(request, limits.body_bytes))
        results = await predict(service, turn, body, request)
        return await turn.write(_json, results)


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(dumps(value), status, headers, _JSON)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _json({"error": error.message}, error.status, error.headers)


async def _no_such_address(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {404: "there is nothing at this address; see /openapi.json", 405: "another method is wanted here"}
    headers = dict(error.headers or {})
    return _json({"error": said.get(error.status_code, str(error.detail))}, error.status_code, headers)


async def _defect(request: Request, error: Exception) -> Response:
    """What is no refusal is a defect; the server's log has it."""
    return _json({"error": "something unexpected went wrong in the service; its log says what"}, 500)
