"""Fixtures for the tests of the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def refused(command: Any, tmp_path: Path, tree: Any) -> Callable[..., str]:
    """Run a command that must fail without writing a file; returns its error line."""

    def call(*arguments: object, code: int = 2) -> str:
        before = tree(tmp_path)
        ended = command(*arguments)
        assert ended.code == code, ended
        (line,) = ended.err.splitlines()
        assert line.startswith("cliper: error: ")
        assert "Traceback" not in ended.out
        assert tree(tmp_path) == before
        return line.removeprefix("cliper: error: ")

    return call
