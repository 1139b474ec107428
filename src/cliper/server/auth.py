"""Authentication by one token."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import Depends
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBasic, HTTPBasicCredentials, HTTPBearer

from cliper.errors import InputError
from cliper.server.errors import HTTPError

__all__ = ["TokenAuth", "check_token"]

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="cliper", Basic realm="cliper"'}


def check_token(token: str) -> str:
    """Check that a token can be sent in a header.

    Raises:
        InputError: an empty token, or one with blanks or characters other than ASCII; the message does not show it.
    """
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise InputError("token: expected ASCII characters without blanks, got none or others; choose another")
    return token


class TokenAuth:
    """FastAPI dependency that requires the token.

    Clients send ``Authorization: Bearer TOKEN``, the token as the password of ``Basic`` (Label Studio), or the header
    ``Token`` (X-AnyLabeling).

    Args:
        token: the expected token.
    """

    def __init__(self, token: str) -> None:
        self._token = token.encode("ascii")

    async def __call__(
        self,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
        basic: Annotated[HTTPBasicCredentials | None, Depends(HTTPBasic(auto_error=False))],
        key: Annotated[str | None, Depends(APIKeyHeader(name="Token", auto_error=False))],
    ) -> None:
        """Raise a 401 unless one of the credentials is the token."""
        given = bearer.credentials if bearer else basic.password if basic else key or ""
        if not secrets.compare_digest(given.strip().encode("utf-8"), self._token):
            raise HTTPError(
                401, "expected the header 'Authorization: Bearer TOKEN' with this server's token", _CHALLENGE
            )
