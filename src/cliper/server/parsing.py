"""Request bodies: read within limits, parsed strictly, validated."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from cliper.server.errors import HTTPError

__all__ = ["decode_base64", "parse_json", "read_body", "read_segment_body", "validate"]

M = TypeVar("M", bound=BaseModel)

_JSON, _FORM = "application/json", "multipart/form-data"
_MAX_ENTRIES = 20_000  # of a list or an object: each wrong entry takes memory for its message
_MAX_FIELDS = 2000  # of a form
_MAX_BOUNDARY = 300  # bytes of the end of a body that may hold its last boundary
_REPEATABLE = ("classes", "background")
_JSON_FIELDS = ("settings", "tolerance")


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The body of a JSON request.

    Raises:
        HTTPError: 400 incomplete, 413 too large, 415 not JSON.
    """
    kind = _content_type(request)
    if kind != _JSON:
        raise HTTPError(415, f"expected {_JSON}, got {kind}; send JSON")
    try:
        return await _LimitedRequest(request, max_bytes).body()
    except ClientDisconnect:
        raise HTTPError(400, "expected a whole body, got a part of it; send it again") from None


async def read_segment_body(request: Request, max_bytes: int) -> tuple[bytes, dict[str, Any]]:
    """The image file and the parameters of a request, as a form or as JSON.

    Raises:
        HTTPError: 400 malformed or incomplete, 413 too large, 415 another type, 422 no image or one that is no file.
    """
    if (kind := _content_type(request)) == _FORM:
        image, values = await _read_form(request, max_bytes)
    elif kind != _JSON:
        raise HTTPError(415, f"expected {_JSON} or {_FORM}, got {kind}; send one of these")
    else:
        values = parse_json(await read_body(request, max_bytes))
        text = values.pop("image", None)
        if text is not None and not isinstance(text, str):
            raise HTTPError(422, "image: expected the image file in base64, got another type")
        image = None if text is None else decode_base64(text, "image")
    if image is None:
        raise HTTPError(422, "image: expected an image, got none; send one")
    return image, values


async def _read_form(request: Request, max_bytes: int) -> tuple[bytes | None, dict[str, Any]]:
    values: dict[str, Any] = {}
    image: bytes | None = None
    limits: dict[str, int] = {"max_files": 2, "max_fields": _MAX_FIELDS, "max_part_size": max_bytes}
    try:
        limited = _LimitedRequest(request, max_bytes)
        async with limited.form(**limits) as form:
            if not limited.ended_with_boundary:
                raise HTTPError(400, "expected a form with its last boundary, got an incomplete one; send it again")
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    if name != "image" or image is not None:
                        raise HTTPError(422, f"expected one file, in the field image, got a file in {name!r:.100}")
                    image = await value.read()
                elif name == "image":
                    raise HTTPError(422, "image: expected a file, got text; send it with a file name")
                elif name in _REPEATABLE:
                    values.setdefault(name, []).append(value)
                elif name in values:
                    raise HTTPError(400, f"{_quote(name)}: expected one field of that name, got two")
                else:
                    values[name] = _load(value, f"{name}: ") if name in _JSON_FIELDS else value
    except ClientDisconnect:
        raise HTTPError(400, "expected a whole body, got a part of it; send it again") from None
    for name in _REPEATABLE:
        if len(values.get(name, ())) == 1:
            (values[name],) = values[name]
    return image, values


def _content_type(request: Request) -> str:
    """The media type of a body, without parameters, in lower case.

    Raises:
        HTTPError: 415 a compressed body.
    """
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise HTTPError(415, "expected a body without Content-Encoding; send it uncompressed")
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()[:100]
    return (given if given.isprintable() else "something else") or "no Content-Type"


class _LimitedRequest(Request):
    """A request whose body has at most ``max_bytes``; reading more raises a 413."""

    def __init__(self, request: Request, max_bytes: int) -> None:
        super().__init__(request.scope, self._receive_limited)
        self._inner, self._max_bytes, self._received, self._end = request, max_bytes, 0, b""
        announced = request.headers.get("content-length", "0")
        if announced.isascii() and announced.isdigit() and int(announced[:20]) > max_bytes:
            raise self._too_large()

    def _too_large(self) -> HTTPError:
        size = f"{self._max_bytes / 1e6:.4g} MB"
        return HTTPError(413, f"expected a body of at most {size}, got a larger one; reduce the image")

    async def _receive_limited(self) -> Message:
        message = await self._inner.receive()
        body = message.get("body", b"")
        self._received += len(body)
        self._end = (self._end + body[-_MAX_BOUNDARY:])[-_MAX_BOUNDARY:]
        if self._received > self._max_bytes:
            raise self._too_large()
        return message

    @property
    def ended_with_boundary(self) -> bool:
        """Whether the body of a form is complete; the parser does not check it."""
        _, options = parse_options_header(self.headers["content-type"])
        return self._end.rstrip(b"\r\n").endswith(b"--" + options[b"boundary"] + b"--")


def parse_json(text: bytes) -> dict[str, Any]:
    """A JSON object; duplicate keys, NaN and infinity are refused.

    Raises:
        HTTPError: 400.
    """
    try:
        value = _load(text.decode("utf-8"), "")
    except UnicodeDecodeError:
        raise HTTPError(400, "expected JSON in UTF-8, got other bytes") from None
    if not isinstance(value, dict):
        raise HTTPError(400, f"expected a JSON object, got {type(value).__name__}")
    return value


def _load(text: str, prefix: str) -> Any:
    try:
        return json.loads(
            text, parse_constant=_refuse_constant, parse_float=_parse_float, object_pairs_hook=_parse_object
        )
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise HTTPError(400, f"{prefix}expected JSON, could not read it ({reason})") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


def _parse_float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:20]} is out of range")
    return value


def _parse_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key occurs twice in one object")
    return values


def decode_base64(text: str, name: str) -> bytes:
    """The bytes; line ends and other characters outside base64 are refused.

    Raises:
        HTTPError: 400.

    Example:
        >>> decode_base64("aGk=", "image")
        b'hi'
    """
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as error:
        reason = "a character outside base64" if isinstance(error, UnicodeEncodeError) else str(error)
        raise HTTPError(400, f"{name}: expected base64, could not read it ({reason[:200]})") from None


def validate(model: type[M], values: dict[str, Any]) -> M:
    """The values as an instance of the model.

    Raises:
        HTTPError: 422, with the first error.
    """
    for name, entries in [("the body", values), *values.items()]:
        if isinstance(entries, dict | list) and len(entries) > _MAX_ENTRIES:
            raise HTTPError(422, f"{_quote(name)}: expected at most {_MAX_ENTRIES} entries, got {len(entries)}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        # Pydantic adds the name of the type for a union; the client's own keys are identifiers.
        location = [str(part) for part in first["loc"] if isinstance(part, int) or part.isidentifier()]
        location = [part for part in location if part not in ("str", "int", "float", "bool")]
        more = error.error_count() - 1
        others = f" (and {more} more)" if more else ""
        raise HTTPError(422, f"{'.'.join(location)[:200]}: {first['msg']}{others}; see /openapi.json") from None


def _quote(name: str) -> str:
    return (name if name.isprintable() else repr(name))[:100]
