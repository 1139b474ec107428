"""Request bodies: forms and JSON, read within limits and parsed strictly."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import HTTPException
from python_multipart.exceptions import FormParserError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from cliper.prompts import split_commas

__all__ = ["MAX_ITEMS", "ParsedRequest", "read_body"]

MAX_ITEMS = 20_000
"""Of a list or an object: each wrong item takes memory for its message."""

_JSON, _FORM = "application/json", "multipart/form-data"
_LISTS, _JSON_FIELDS = ("classes", "background"), ("settings", "tolerance")


class ParsedRequest(Request):
    """A request whose body has been read; FastAPI validates ``values`` as it would validate JSON."""

    def __init__(self, request: Request, values: dict[str, Any]) -> None:
        headers = [(name, value) for name, value in request.scope["headers"] if name != b"content-type"]
        scope = {**request.scope, "headers": [*headers, (b"content-type", _JSON.encode())]}
        super().__init__(scope, request.receive)
        self._values = values

    async def body(self) -> bytes:
        """Not empty: then FastAPI calls :meth:`json`."""
        return b"{}"

    async def json(self) -> dict[str, Any]:
        """The values."""
        return self._values


async def read_body(request: Request, max_bytes: int, *, forms: bool) -> dict[str, Any]:
    """The values of a JSON object or, if allowed, of a form, in which ``image`` is a file and commas divide classes.

    Raises:
        HTTPException: 400 malformed or incomplete, 413 too large, 415 another type, 422 another file.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _JSON and not (forms and kind == _FORM):
        raise HTTPException(415, f"expected {f'{_JSON} or {_FORM}' if forms else _JSON}, got {kind[:60]!a}")
    try:
        if kind == _FORM:
            return await _read_form(request, max_bytes)
        body = b"".join([piece async for piece in _limited(request, max_bytes)])
    except ClientDisconnect:
        raise HTTPException(400, "expected a whole body, got a part of it; send it again") from None
    values = await run_in_threadpool(_parse_json, body)
    if not isinstance(values, dict):
        raise HTTPException(400, f"expected a JSON object, got {type(values).__name__}")
    return values


async def _limited(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    error = HTTPException(413, f"expected a body of at most {max_bytes / 1e6:.4g} MB, got more; reduce the image")
    if int(request.headers.get("content-length", 0)) > max_bytes:
        raise error
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > max_bytes:
            raise error
        yield piece


async def _read_form(request: Request, max_bytes: int) -> dict[str, Any]:
    # Starlette reads text that is not UTF-8 as Latin-1. All text is, so that none is mistaken for another.
    headers = Headers({"content-type": f"{request.headers['content-type']}; charset=latin-1"})
    parser = MultiPartParser(headers, _limited(request, max_bytes), max_files=1, max_part_size=max_bytes)
    values: dict[str, Any] = {}
    try:
        form = await parser.parse()
        for name, value in form.multi_items():
            if isinstance(value, UploadFile) != (name == "image"):
                raise HTTPException(422, f"expected one file, in the field image, got other content in {name!r:.99}")
            read = value.encode("latin-1").decode("utf-8") if isinstance(value, str) else await value.read()
            if name in _LISTS:
                values.setdefault(name, []).append(read)
            elif name in values:
                raise HTTPException(400, f"{name!r:.99}: expected one field of that name, got two")
            else:
                values[name] = _parse_json(read) if name in _JSON_FIELDS else read
        await form.close()
        if 0 < sum(map(len, values.get("classes", ()))) <= 100_000:  # more are refused later
            notes = request.state.notes = list[str]()
            values["classes"] = [one for text in values["classes"] for one in split_commas(text, notes.append)]
    except (MultiPartException, FormParserError) as error:
        raise HTTPException(400, f"expected a form, could not read it ({error}); send it again") from None
    except UnicodeDecodeError:
        raise HTTPException(400, f"{name!r:.99}: expected text in UTF-8, got other bytes") from None
    return values


def _parse_json(text: str | bytes) -> Any:
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        return json.loads(decoded, object_pairs_hook=_parse_object)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"expected JSON, could not read it ({str(error)[:200]})") from None


def _parse_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs) or len(pairs) > MAX_ITEMS:
        raise ValueError(f"an object has a key twice, or more than {MAX_ITEMS} keys")
    return values
