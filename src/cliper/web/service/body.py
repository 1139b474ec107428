"""Reading a request's body: no more than it may have, while it comes in; nothing of it is believed yet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from cliper.web.service.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Form", "read_body", "read_json_body"]

_MOST_PARTS = 2000
_MOST_HEADERS, _LARGEST_HEADER = 8, 4096  # of a part; bytes
_PICTURE = "image"


@dataclass
class Form:
    """A form's parts as they came.

    Args:
        image: of the part ``image``, None if there is none.
        fields: name and bytes of the others, in their order.
    """

    image: bytes | None = None
    fields: list[tuple[str, bytes]] = field(default_factory=list)


async def read_body(request: Request, most: int) -> bytes | Form:
    """The body of a request: bytes that say to be JSON, or a form. A form's file names are not looked at.

    Args:
        request: nothing of it has been read.
        most: bytes that it may have.

    Raises:
        Refusal: 400 a form that is broken off or none, 413 too large, 415 another kind.
    """
    kind, boundary = _content_type(request)
    if kind == "application/json":
        return await _read(request, most)
    if kind != "multipart/form-data":
        raise Refusal(
            415, f"expected application/json or multipart/form-data, got {kind or 'no Content-Type'}; send one of these"
        )
    if not boundary:
        raise Refusal(400, "expected a boundary in the Content-Type multipart/form-data, got none; name it there")
    return await _read_form(request, boundary, most)


async def read_json_body(request: Request, most: int) -> bytes:
    """As :func:`read_body`, for JSON only."""
    kind, _ = _content_type(request)
    if kind != "application/json":
        raise Refusal(415, f"expected application/json, got {kind or 'no Content-Type'}; send JSON")
    return await _read(request, most)


def _content_type(request: Request) -> tuple[str, bytes]:
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Refusal(415, "expected a body without Content-Encoding; send it as it is")
    given = request.headers.get("content-type", "")
    try:
        kind, options = parse_options_header(given)
    except Exception:  # whatever its parser meets
        raise Refusal(415, "expected a Content-Type that can be read, got another; send application/json") from None
    shown = kind.decode("latin-1").strip().lower()[:100]
    return shown if shown.isprintable() else "something else", options.get(b"boundary", b"")


async def _chunks(request: Request, most: int, take: Callable[[bytes], object]) -> None:
    too_large = f"expected a body of at most {most / 1e6:.4g} MB, got a larger one; make the picture smaller first"
    announced = request.headers.get("content-length", "0")
    if announced.isascii() and announced.isdigit() and int(announced[:20]) > most:
        raise Refusal(413, too_large)
    read = 0
    try:
        async for chunk in request.stream():
            read += len(chunk)
            if read > most:
                raise Refusal(413, too_large)
            if chunk:
                take(chunk)
    except ClientDisconnect:
        raise Refusal(400, "expected a whole body, got a part of it; send it again") from None


async def _read(request: Request, most: int) -> bytes:
    whole = bytearray()
    await _chunks(request, most, whole.extend)
    return bytes(whole)


async def _read_form(request: Request, boundary: bytes, most: int) -> Form:
    parts = _Parts()
    try:
        parser = MultipartParser(
            boundary, parts.callbacks(), max_header_count=_MOST_HEADERS, max_header_size=_LARGEST_HEADER
        )
        await _chunks(request, most, parser.write)
    except FormParserError as error:
        raise Refusal(400, f"expected multipart/form-data, got something broken ({error})") from None
    if not parts.ended:
        raise Refusal(400, "expected a form with its last boundary, got one that is broken off; send it again")
    return parts.form


class _Parts:
    """Puts together what the parser calls out."""

    def __init__(self) -> None:
        self.form = Form()
        self.ended = False
        self._headers: dict[bytes, bytes] = {}
        self._name, self._value = bytearray(), bytearray()
        self._field = ""
        self._data = bytearray()
        self._count = 0

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header,
            "on_headers_finished": self._headers_finished,
            "on_part_data": lambda data, start, end: self._data.extend(data[start:end]),
            "on_part_end": self._end,
            "on_end": self._all,
        }

    def _begin(self) -> None:
        self._count += 1
        if self._count > _MOST_PARTS:
            raise Refusal(400, f"expected a form of at most {_MOST_PARTS} parts, got more; send fewer")
        self._headers, self._data = {}, bytearray()

    def _header(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name, self._value = bytearray(), bytearray()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if b"name" not in options:
            raise Refusal(400, "expected parts with a name in their Content-Disposition, got one without")
        self._field = options[b"name"].decode("utf-8", "replace")[:100]

    def _end(self) -> None:
        if self._field != _PICTURE:
            self.form.fields.append((self._field, bytes(self._data)))
        elif self.form.image is not None:
            raise Refusal(400, f"expected one part {_PICTURE}, got two; send a request for each picture")
        else:
            self.form.image = bytes(self._data)
        self._data = bytearray()

    def _all(self) -> None:
        self.ended = True
