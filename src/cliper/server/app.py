"""The ASGI application: routes of the API and the static page."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from cliper.examples import EXAMPLE_CLASSES, example_photo
from cliper.files import dumps
from cliper.server.admission import RequestContext, Service
from cliper.server.auth import TokenAuth
from cliper.server.errors import HTTPError
from cliper.server.export import describe_formats, write_export
from cliper.server.hosts import HostCheckMiddleware
from cliper.server.label_studio import predict
from cliper.server.openapi import describe_bodies, errors, request_body
from cliper.server.parsing import parse_json, read_body, read_segment_body, validate
from cliper.server.request import build_request
from cliper.server.responses import segment_response
from cliper.server.schemas import (
    ExportRequest,
    LabelStudioPredict,
    LabelStudioSetup,
    SegmentForm,
    SegmentJson,
    SegmentParams,
    SegmentResponse,
    XAnyLabelingPredict,
)
from cliper.server.timeouts import TimeoutMiddleware, exit_stack
from cliper.server.x_anylabeling import build_x_anylabeling_request, describe_model, shapes_response

__all__ = ["create_app"]

_STATIC = Path(__file__).parent / "static"
M = TypeVar("M", bound=BaseModel)


def create_app(service: Service) -> FastAPI:
    """The API and the page as an ASGI application.

    Args:
        service: has been entered.
    """
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # its warnings are about untrusted bodies
    version = service.model.version
    app = FastAPI(title="CLIPer", version=version, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_middleware(HostCheckMiddleware, loopback_only=service.loopback_only, origins=service.origins)
    if service.origins:
        allowed, exposed = ["Authorization", "Content-Type"], ["Retry-After"]
        app.add_middleware(CORSMiddleware, allow_origins=service.origins, allow_headers=allowed, expose_headers=exposed)
    app.add_middleware(TimeoutMiddleware, service=service)
    app.add_exception_handler(HTTPError, _http_error)
    app.add_exception_handler(HTTPException, _framework_error)
    app.add_exception_handler(Exception, _defect)
    token = [] if service.token is None else [Depends(TokenAuth(service.token))]
    for add_routes in (_add_segmentation, _add_label_studio, _add_x_anylabeling):
        router = APIRouter(dependencies=token, responses=errors(), default_response_class=Response)
        add_routes(router, service)
        app.include_router(router)
    _add_state(app, service)
    app.mount("/static", StaticFiles(directory=_STATIC))
    describe_bodies(
        app, SegmentJson, SegmentForm, ExportRequest, LabelStudioPredict, LabelStudioSetup, XAnyLabelingPredict
    )
    return app


async def _admit(service: Service, request: Request, model: type[M]) -> tuple[RequestContext, M]:
    """Admit a JSON request, then read and validate its body."""
    context = exit_stack(request).enter_context(service.admit())
    body = await context.read(read_body(request, service.model.limits.body_bytes))
    return context, await context.run_in_thread(lambda: validate(model, parse_json(body)))


def _add_segmentation(router: APIRouter, service: Service) -> None:
    model, limits = service.model, service.model.limits

    @router.post("/v1/segment", response_model=SegmentResponse, openapi_extra=request_body(SegmentJson, SegmentForm))
    async def segment(request: Request) -> Response:
        """Segment an image."""
        context = exit_stack(request).enter_context(service.admit())
        image, values = await context.read(read_segment_body(request, limits.body_bytes))
        params = await context.run_in_thread(validate, SegmentParams, values)
        built = await context.run_in_thread(build_request, model, image, params)
        del image  # a queued request holds the decoded image, not its file too
        prediction = await context.segment(built, request)
        return await context.run_in_thread(lambda: _json(segment_response(model, prediction, params)))

    @router.post("/v1/export", openapi_extra=request_body(ExportRequest))
    async def export(request: Request) -> Response:
        """Write class maps or masks in a file format: a file, or a zip of several."""
        context, values = await _admit(service, request, ExportRequest)
        content, name, media_type = await context.run_in_thread(write_export, model, values)
        disposition = f'attachment; filename="{name.encode("ascii", "replace").decode()}"'
        return Response(content, headers={"Content-Disposition": disposition}, media_type=media_type)

    @router.get("/v1/models")
    async def models() -> Response:
        """The served model, its limits, and the export formats; in X-AnyLabeling's form too."""
        described = {"models": [model.describe()], "formats": describe_formats(), "example": [EXAMPLE_CLASSES]}
        return _json({"version": model.version, **described, "success": True, "data": describe_model(model)})

    @router.get("/metrics")
    async def metrics() -> Response:
        """Metrics for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


def _add_label_studio(router: APIRouter, service: Service) -> None:
    @router.get("/health")
    async def health() -> Response:
        """State, for Label Studio."""
        return _json({"status": "UP", "model_class": "CLIPer"})

    @router.post("/setup", openapi_extra=request_body(LabelStudioSetup))
    async def setup(request: Request) -> Response:
        """Label Studio connects a project."""
        await _admit(service, request, LabelStudioSetup)
        return _json({"model_version": service.model.model_version})

    @router.post("/predict", openapi_extra=request_body(LabelStudioPredict))
    async def label_studio_predict(request: Request) -> Response:
        """Label Studio asks for predictions."""
        context, values = await _admit(service, request, LabelStudioPredict)
        return _json(await predict(service, context, values, request))


def _add_x_anylabeling(router: APIRouter, service: Service) -> None:
    @router.post("/v1/predict", openapi_extra=request_body(XAnyLabelingPredict))
    async def x_anylabeling_predict(request: Request) -> Response:
        """X-AnyLabeling asks for shapes."""
        context, values = await _admit(service, request, XAnyLabelingPredict)
        built = await context.run_in_thread(build_x_anylabeling_request, service.model, values)
        prediction = await context.segment(built, request)
        return await context.run_in_thread(lambda: _json(shapes_response(prediction, values)))


def _add_state(app: FastAPI, service: Service) -> None:
    """Routes that need no token."""

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page() -> Response:
        return FileResponse(_STATIC / "index.html")

    @app.get("/static/example.jpg", include_in_schema=False)
    async def example() -> Response:
        return FileResponse(example_photo())

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz")
    async def healthz() -> Response:
        """Whether the process is alive."""
        return _json({"status": "alive"})

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", responses=errors(503))
    async def readyz() -> Response:
        """Whether requests are accepted."""
        if service.stopping:
            raise HTTPError(503, "this server is stopping")
        return _json({"status": "ready"})


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(dumps(value), status, headers, "application/json")


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPError)
    return _json({"error": error.message}, error.status, error.headers)


async def _framework_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = " ".join(f"{error.detail}; see /openapi.json".split())
    return _json({"error": message}, error.status_code, dict(error.headers or {}))


async def _defect(request: Request, error: Exception) -> Response:
    """Any other exception is a defect; the server's log has the traceback."""
    return _json({"error": "unexpected error in the server; its log has the details"}, 500)
