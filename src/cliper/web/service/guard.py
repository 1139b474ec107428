"""Who may ask: a token, if the operator has set one."""

from __future__ import annotations

import base64
import binascii
import secrets

from starlette.requests import Request

from cliper.errors import InputError
from cliper.web.service.refusal import Refusal

__all__ = ["check_token", "guard"]

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="cliper", Basic realm="cliper"'}


def check_token(token: str) -> str:
    """A token that a header can carry.

    Raises:
        InputError: an empty one, or one with blanks or other than ASCII; the message does not show it.
    """
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise InputError("token: expected ASCII characters without blanks, got none or others; choose another")
    return token


def guard(request: Request, token: str | None) -> None:
    """Let a request pass, or refuse it.

    ``Bearer TOKEN``, or the token as the password of ``Basic``, which is what Label Studio can send; any user name.

    Raises:
        Refusal: 401.
    """
    if token is None:
        return
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    given = value.strip().encode("latin-1", "replace")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            given = b""
    elif scheme.lower() != "bearer":
        given = b""
    if not secrets.compare_digest(given, token.encode("ascii")):
        raise Refusal(401, "expected the header 'Authorization: Bearer TOKEN' with this service's token", _CHALLENGE)
