"""Errors as HTTP responses."""

from __future__ import annotations

from collections.abc import Mapping

from cliper.errors import CliperError, InputError, RefinerError, ResourceError

__all__ = ["HTTPError", "http_error"]


class HTTPError(Exception):
    """A response with an error status.

    Args:
        status: HTTP status code.
        message: one line: what was expected, what came, what to do.
        headers: additional response headers.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = " ".join(message.split())[:1000]
        self.headers = dict(headers or {})


def http_error(error: CliperError) -> HTTPError:
    """Map an error of the package to a status: 422 if other input helps, else 503.

    Example:
        >>> http_error(InputError("expected classes")).status
        422
    """
    if isinstance(error, InputError | RefinerError):
        return HTTPError(422, str(error))
    if isinstance(error, ResourceError):
        return HTTPError(503, str(error), {"Retry-After": "5"})
    return HTTPError(503, str(error))
