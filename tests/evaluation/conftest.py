"""What the tests of the evaluation share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_progress_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a run of seconds takes a minute, and would say how far it is."""
    monkeypatch.setattr("cliper.cli.progress._LOG_INTERVAL", 1e9)
