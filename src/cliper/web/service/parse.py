"""From a body to what was asked, as checked values: JSON, base64, and a form's fields."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from cliper.web.service.body import Form
from cliper.web.service.refusal import Refusal
from cliper.web.service.schema import Wishes

__all__ = ["decode_base64", "parse_json", "parse_wishes", "validated"]

M = TypeVar("M", bound=BaseModel)

# In a list or an object that is checked one by one: each that is wrong takes memory for its message.
_ENTRIES = 20_000

_REPEATABLE = ("classes", "background")
_JSON_FIELDS = ("settings", "tolerance")


def parse_wishes(body: bytes | Form) -> tuple[bytes, Wishes]:
    """The picture's file, still undecoded, and the wishes.

    Raises:
        Refusal: 400 what is no JSON, no base64, no UTF-8; 422 other keys or values than the schema's.
    """
    if isinstance(body, Form):
        image, values = body.image, _form_values(body)
    else:
        values = parse_json(body)
        image = _image(values.pop("image", None))
    if image is None:
        raise Refusal(422, "image: expected a picture, got none; send one")
    return image, validated(Wishes, values)


def parse_json(text: bytes) -> dict[str, Any]:
    """A JSON object. NaN, infinity and numbers beyond a float are refused, as JSON has none.

    Raises:
        Refusal: 400.
    """
    value = _value(text, "")
    if not isinstance(value, dict):
        raise Refusal(400, f"expected a JSON object, got {_kind(value)}")
    return value


def _value(text: bytes, place: str) -> Any:
    try:
        return json.loads(text.decode("utf-8"), parse_constant=_no_constant, parse_float=_finite)
    except UnicodeDecodeError:
        raise Refusal(400, f"{place}expected JSON in UTF-8, got other bytes") from None
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"{place}expected JSON, could not read it ({' '.join(str(error).split())[:200]})") from None


def decode_base64(text: str, what: str) -> bytes:
    """The bytes; anything but plain base64 without line ends is refused.

    Raises:
        Refusal: 400.

    Example:
        >>> decode_base64("aGk=", "image")
        b'hi'
    """
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError) as error:
        reason = "a character that is not of base64" if isinstance(error, UnicodeEncodeError) else str(error)
        raise Refusal(400, f"{what}: expected base64, could not read it ({reason[:200]})") from None


def validated(model: type[M], values: dict[str, Any]) -> M:
    """The values as the model wants them.

    Raises:
        Refusal: 422, with the first of what is wrong.
    """
    for place, entries in [("the body", values), *values.items()]:
        if isinstance(entries, dict | list) and len(entries) > _ENTRIES:
            raise Refusal(422, f"{_shown(place)}: expected at most {_ENTRIES} entries, got {len(entries)}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"] if _is_of_caller(part))[:200]
        more = error.error_count() - 1
        others = f" (and {more} more)" if more else ""
        raise Refusal(422, f"{place}: {first['msg']}{others}; see /openapi.json") from None


def _is_of_caller(part: str | int) -> bool:
    """Whether a part of a place is a key or an index, not the name of a type among which there was a choice."""
    return isinstance(part, int) or (part.isidentifier() and part not in ("str", "int"))


def _image(value: object) -> bytes | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise Refusal(422, f"image: expected the picture's file in base64, got {_kind(value)}")
    return decode_base64(value, "image")


def _form_values(form: Form) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, raw in form.fields:
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise Refusal(400, f"{_shown(name)}: expected text in UTF-8, got other bytes") from None
        if name in _REPEATABLE:
            values.setdefault(name, []).append(text)
        elif name in values:
            raise Refusal(400, f"{_shown(name)}: expected one part of that name, got two")
        elif name in _JSON_FIELDS:
            values[name] = _value(raw, f"{name}: ")
        else:
            values[name] = text
    for name in _REPEATABLE:
        if len(values.get(name, ())) == 1:
            (values[name],) = values[name]
    return values


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:20]} is beyond all numbers")
    return value


def _kind(value: object) -> str:
    kinds: dict[type, str] = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    return "null" if value is None else kinds.get(type(value), "a number")


def _shown(name: str) -> str:
    return name if name.isprintable() else repr(name)
