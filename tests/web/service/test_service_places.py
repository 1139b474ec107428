"""A place inside is held as long as a thread works for its request, also when nobody waits for the answer any more."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from cliper.web.service import app


def test_a_place_is_held_while_an_answer_is_still_written(
    start: Any, picture_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, end = app.answer, threading.Event()

    def slow(*given: Any) -> Any:
        assert end.wait(60)
        return real(*given)

    monkeypatch.setattr(app, "answer", slow)
    service = start(queue=1, seconds=1.0)
    late = service.segment(picture_file)
    assert late.status_code == 504
    assert "decoding or answering" in late.json()["error"]
    assert service.service.inside == 1
    assert service.segment(picture_file).status_code == 429
    end.set()
    until = time.monotonic() + 60
    while service.service.inside:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert service.segment(picture_file).status_code == 200
