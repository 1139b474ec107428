"""Why a request is not answered with a result."""

from __future__ import annotations

from collections.abc import Mapping

from cliper.errors import CliperError, InputError, RefinerError, ResourceError

__all__ = ["Refusal", "refusal_of"]


class Refusal(Exception):
    """An answer other than 200.

    Args:
        status: of HTTP.
        message: one line: what was expected, what came, what to do.
        headers: that the answer has besides.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = " ".join(message.split())[:1000]
        self.headers = dict(headers or {})


def refusal_of(error: CliperError) -> Refusal:
    """What the package refuses, as an answer: 422 where other input helps, 503 where it does not.

    Example:
        >>> refusal_of(InputError("expected classes")).status
        422
    """
    if isinstance(error, InputError | RefinerError):
        return Refusal(422, str(error))
    if isinstance(error, ResourceError):
        return Refusal(503, str(error), {"Retry-After": "5"})
    return Refusal(503, str(error))
