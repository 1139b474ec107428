"""The ASGI application: routes of the API and the static page."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from prometheus_client import generate_latest
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from cliper.errors import CliperError, InputError, RefinerError
from cliper.examples import example_photo
from cliper.files import dumps
from cliper.formats import find_format, format_names
from cliper.server import schemas
from cliper.server.access import AccessMiddleware, TokenAuth
from cliper.server.label_studio import predict
from cliper.server.request_body import ParsedRequest, read_body
from cliper.server.responses import segment_response, shapes_response, write_export
from cliper.server.service import Service, cancel_on_disconnect

__all__ = ["create_app"]

_STATIC = Path(__file__).parent / "static"
_SEGMENT = "/v1/segment"


def create_app(service: Service) -> FastAPI:
    """The API and the page as an ASGI application.

    Args:
        service: has been entered.
    """
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # its warnings are about untrusted bodies
    app = FastAPI(title="CLIPer", version=service.model.version, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_middleware(AccessMiddleware, service=service)
    if service.origins:
        allowed, exposed = ["Authorization", "Content-Type"], ["Retry-After"]
        app.add_middleware(CORSMiddleware, allow_origins=service.origins, allow_headers=allowed, expose_headers=exposed)
    for kind in (HTTPException, RequestValidationError, ValidationError, CliperError, Exception):
        app.add_exception_handler(kind, _describe_error)
    auth = TokenAuth(service.token)
    responses: dict[int | str, dict[str, Any]] = {status: {"model": schemas.ErrorResponse} for status in ("4XX", "5XX")}
    for add_routes, route in ((_add_gets, APIRoute), (_add_posts, _limited_route(service, auth))):
        router = APIRouter(
            route_class=route, dependencies=[Depends(auth)], responses=responses, default_response_class=Response
        )
        add_routes(router, service)
        app.include_router(router)
    _add_page(app)
    return app


def _limited_route(service: Service, auth: TokenAuth) -> type[APIRoute]:
    """Routes with a body: each request is authenticated and admitted before its body is read, and has a deadline."""

    class LimitedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle, limits = super().get_route_handler(), service.model.limits

            async def handle_within_limits(request: Request) -> Response:
                await auth(request)
                status, doing = 408, "while the body was read; send it faster"
                with service.admit():
                    try:
                        async with asyncio.timeout(limits.seconds):
                            values = await read_body(request, int(limits.megabytes * 1e6), forms=self.path == _SEGMENT)
                            status, doing = 504, "in the queue or in the model; ask for less, or again later"
                            return await cancel_on_disconnect(handle(ParsedRequest(request, values)), request)
                    except TimeoutError:
                        headers = {"Connection": "close"} if status == 408 else {"Retry-After": "5"}
                        message = f"expected to finish in {limits.seconds:g} s, timed out {doing}"
                        raise HTTPException(status, message, headers) from None
                    except asyncio.CancelledError:  # a second signal
                        raise HTTPException(503, "the server is stopping; ask again later") from None

            return handle_within_limits

    return LimitedRoute


def _add_gets(router: APIRouter, service: Service) -> None:
    model = service.model

    @router.get("/v1/models")
    async def models() -> Response:
        """The served model, its limits, and the export formats; in X-AnyLabeling's form too."""
        known = map(find_format, format_names())
        formats = [{"name": one.name, "summary": one.summary, "needs_image": one.shows_image} for one in known]
        described = {"models": [model.describe()], "formats": formats, "example": service.example}
        values: dict[str, Any] = {"mask_fineness_slider": 10, "toggle_preserve_existing_annotations": False}
        values["edit_conf"] = model.settings.score_threshold
        names = ("edit_text", "button_send", "input_conf", "mask_fineness_value_label", *values)
        widgets = [{"name": name, "value": values.get(name)} for name in names]
        shown = {"display_name": f"CLIPer {model.name}", "batch_processing_mode": "text_prompt"}
        data = {model.name: {**shown, "widgets": widgets, "params": {}}}
        return _json({"version": model.version, **described, "success": True, "data": data})

    @router.get("/metrics")
    async def metrics() -> Response:
        """Metrics for Prometheus."""
        return Response(generate_latest(service.metrics.registry), media_type="text/plain; version=0.0.4")

    @router.get("/health")
    async def health() -> Response:
        """State, for Label Studio."""
        return _json({"status": "UP", "model_class": "CLIPer"})


def _add_posts(router: APIRouter, service: Service) -> None:
    model, run = service.model, service.run_in_thread

    @router.post(_SEGMENT, response_model=schemas.SegmentResponse, openapi_extra=_form_body())
    async def segment(body: schemas.SegmentRequest, request: Request) -> Response:
        """Segment an image."""
        prediction = await service.segment(body)
        return await run(lambda: _json(segment_response(model, prediction, body, getattr(request.state, "notes", []))))

    @router.post("/v1/export")
    async def export(body: schemas.ExportRequest) -> Response:
        """Write class maps or masks in a file format: a file, or a zip of several."""
        content, name, media_type = await run(write_export, model, body)
        disposition = f'attachment; filename="{name.encode("ascii", "replace").decode()}"'
        return Response(content, headers={"Content-Disposition": disposition}, media_type=media_type)

    @router.post("/v1/predict")
    async def x_anylabeling_predict(body: schemas.XAnyLabelingPredict) -> Response:
        """X-AnyLabeling asks for shapes; its classes are separated by a full stop, comma or semicolon."""
        classes = [name.strip() for name in re.split(r"[.,;]", body.params.text_prompt) if name.strip()]
        settings = {"score_threshold": body.params.conf_threshold} if body.params.conf_threshold else {}
        request = {"image": body.image, "classes": classes, "settings": settings, "model": body.model}
        result, _ = await service.segment(schemas.SegmentRequest.model_validate(request))
        return await run(lambda: _json(shapes_response(result, body)))

    @router.post("/setup")
    async def setup(body: dict[str, Any]) -> Response:
        """Label Studio connects a project; nothing of it is used."""
        return _json({"model_version": model.model_version})

    @router.post("/predict")
    async def label_studio_predict(body: schemas.LabelStudioPredict) -> Response:
        """Label Studio asks for predictions."""
        return _json(await predict(service, body))


def _add_page(app: FastAPI) -> None:
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

    app.mount("/static", StaticFiles(directory=_STATIC))


def _form_body() -> dict[str, Any]:
    """The body of a form for OpenAPI: as in JSON, but for the image."""
    schema = schemas.SegmentRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    schema["properties"]["image"] = {"type": "string", "contentMediaType": "application/octet-stream"}
    schema.pop("$defs")
    encoding = {"settings": {"contentType": "application/json"}}
    return {"requestBody": {"content": {"multipart/form-data": {"schema": schema, "encoding": encoding}}}}


def _json(value: Any, status: int = 200, headers: Any = None) -> Response:
    return Response(dumps(value), status, headers, "application/json")


async def _describe_error(request: Request, error: Exception) -> Response:
    """Any error as one line. One that is not expected is a defect; the server's log has the traceback."""
    status, message, headers = 500, "unexpected error in the server; its log has the details", None
    if isinstance(error, HTTPException):
        status, message, headers = error.status_code, str(error.detail), error.headers
    elif isinstance(error, RequestValidationError | ValidationError):
        first, *others = error.errors()
        # The names of the request: pydantic adds those of types.
        parts = [str(part) for part in first["loc"] if isinstance(part, int) or part.isidentifier()]
        location = ".".join(part for part in parts if part not in ("body", "str", "int", "float", "bool"))
        more = f" (and {len(others)} more)" if others else ""
        message = f"{location[:200]}: {first['msg'].removeprefix('Value error, ')}{more}; see /openapi.json"
        status = 422
    elif isinstance(error, InputError | RefinerError):
        status, message = 422, str(error)
    elif isinstance(error, CliperError):
        status, message, headers = 503, str(error), {"Retry-After": "5"}
    return _json({"error": " ".join(message.split())[:1000]}, status, headers)
