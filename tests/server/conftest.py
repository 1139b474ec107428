"""The server in this process, with the tiny checkpoint, and as a process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from server_in_process import Running, png, running
from server_process import TIMEOUT, Process

from cliper.segmenter import Segmenter


@pytest.fixture
def start(tiny: Segmenter) -> Iterator[Callable[..., Running]]:
    """Start a service with limits and options of its own."""
    with ExitStack() as ends:
        yield lambda segmenter=tiny, **options: ends.enter_context(running(segmenter, **options))


@pytest.fixture(scope="session")
def usual(tiny: Segmenter) -> Iterator[Running]:
    """A service with the usual limits, for tests that leave it as it was."""
    with running(tiny) as found:
        yield found


@pytest.fixture(scope="session")
def image_file(make_image: Callable[..., Image.Image]) -> bytes:
    """A PNG of 96 x 64 pixels."""
    return png(make_image())


class Gate:
    """Holds the model until it is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.reached = threading.Semaphore(0)
        self.groups: list[int] = []

    def wait_for_model(self) -> None:
        """Until the model has been called once more."""
        assert self.reached.acquire(timeout=30)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Every call of a segmenter waits until the gate is open; the sizes of its batches are recorded."""
    found, real = Gate(), Segmenter.__call__

    def held(self: Segmenter, image: Any, *rest: Any) -> Any:
        found.groups.append(len(image))
        found.reached.release()
        assert found.open.wait(60)
        return real(self, image, *rest)

    monkeypatch.setattr(Segmenter, "__call__", held)
    yield found
    found.open.set()


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call of the model fails the test."""
    monkeypatch.setattr(Segmenter, "__call__", lambda *_: pytest.fail("the model was called"))


@pytest.fixture
def serve(clip_folder: Path) -> Iterator[Callable[..., Process]]:
    """Start ``cliper serve`` with options of its own; it ends with the test."""
    started: list[Process] = []

    def start(*options: str, **more: Any) -> Process:
        started.append(Process(clip_folder, *options, **more))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait(TIMEOUT)
