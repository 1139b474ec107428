"""Why a request does not get to Gradio."""

from __future__ import annotations

from starlette.responses import JSONResponse

__all__ = ["Refused"]


class Refused(Exception):
    """An answer other than 200.

    Args:
        status: of HTTP.
        text: one line: what was expected, and what came where that helps.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status

    def answer(self) -> JSONResponse:
        """The answer, as Gradio's own refusals look."""
        return JSONResponse({"detail": str(self)}, status_code=self.status)
