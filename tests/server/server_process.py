"""``cliper serve`` as a process, and its clients."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

TIMEOUT = 120  # seconds that anything may take on a busy machine


class Process:
    """``cliper serve`` with the tiny checkpoint.

    Args:
        model: the checkpoint's folder.
        options: of the command.
        program: what Python is to run in place of ``-m cliper``.
        environment: besides that of the tests.
    """

    def __init__(
        self, model: Path, *options: str, program: tuple[str, ...] = ("-m", "cliper"), **environment: str
    ) -> None:
        command = [sys.executable, *program, "serve", "--port", "0", "--model", str(model), "--device", "cpu"]
        self.process = subprocess.Popen(
            [*command, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        assert self.process.stdout is not None
        late = threading.Timer(TIMEOUT, self.process.kill)
        late.start()
        self.line = self.process.stdout.readline()  # comes when it is ready, or is empty when it has ended
        late.cancel()
        found = re.fullmatch(r"tiny at (http://127\.0\.0\.1:\d+)\n", self.line)
        assert found, (self.line, self.end())
        self.address = found[1]

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Tell it to stop; its exit code and what it said on the error stream."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> tuple[int, str]:
        """Wait until it has stopped; its exit code and what it said on the error stream."""
        _, said = self.process.communicate(timeout=TIMEOUT)
        return self.process.returncode, said

    @property
    def stopping(self) -> bool:
        """Whether it says that it stops."""
        return httpx.get(f"{self.address}/readyz", timeout=TIMEOUT).status_code == 503

    @property
    def in_flight(self) -> int:
        """Admitted requests that are not answered."""
        return int(number_of("cliper_requests_in_flight", self.metrics))

    @property
    def metrics(self) -> str:
        return httpx.get(f"{self.address}/metrics", timeout=TIMEOUT).text


class Held(Process):
    """The same, with a model that waits when it is told to.

    Args:
        model: the checkpoint's folder.
        folder: for what is told to the process and what it tells.
        options: of the command.
    """

    def __init__(self, model: Path, folder: Path, *options: str) -> None:
        self._held, self._counts = folder / "held", folder / "counts"
        program = (str(Path(__file__).parent / "held_server.py"), str(self._held), str(self._counts))
        super().__init__(model, *options, program=program)

    def hold(self) -> None:
        """What the model has not begun it does not begin."""
        self._held.touch()

    def release(self) -> None:
        self._held.unlink(missing_ok=True)

    def answers(self) -> dict[int, int]:
        """Number of responses of POST /v1/segment by status; known after the end."""
        found = re.findall(
            r'^cliper_requests_total\{method="POST",path="/v1/segment",status="(\d+)"\} (\S+)$',
            self._counts.read_text(encoding="utf-8"),
            re.MULTILINE,
        )
        return {int(status): int(float(count)) for status, count in found}


def number_of(name: str, metrics: str) -> float:
    """A metric's value; ``name`` has its labels in it, if there are any. What was not counted yet is 0."""
    found = re.findall(rf"^{re.escape(name)} (\S+)$", metrics, re.MULTILINE)
    return float(found[0]) if found else 0.0


def form_of(image: bytes) -> dict[str, Any]:
    """A form that asks for a small size."""
    return {"image": ("a.png", image), "classes": (None, "cat"), "settings": (None, '{"size": 64}')}


def ask(address: str, image: bytes, **headers: str) -> httpx.Response:
    """What POST /v1/segment answers to a form."""
    return httpx.post(f"{address}/v1/segment", files=form_of(image), headers=headers, timeout=TIMEOUT)


@contextmanager
def connected(address: str) -> Iterator[socket.socket]:
    """A connection that says nothing yet."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT) as found:
        yield found


def head(path: str, length: int) -> bytes:
    """Headers of a JSON request."""
    fields = f"Host: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    return f"POST {path} HTTP/1.1\r\n{fields}".encode()


def read_answer(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of an answer."""
    with connection.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        length = 0
        while (line := stream.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        return status, stream.read(length)


def wait_for(condition: Callable[[], object]) -> None:
    """Ask again and again until it is so."""
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)
