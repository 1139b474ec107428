"""Answers to clients that are still sending."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("starlette")

from cliper.web import drain


def test_a_body_that_does_not_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "PATIENCE", 0.05)
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(0.001)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    async def answer() -> None:
        _, answering = drain.draining({"headers": []}, receive, send)
        await answering({"type": "http.response.start", "status": 413, "headers": []})

    asyncio.run(asyncio.wait_for(answer(), 60))
    assert sent[0]["headers"] == [(b"connection", b"close")]
