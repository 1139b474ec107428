"""``cliper serve`` as a process, and its clients."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

TIMEOUT = 120  # seconds that anything may take on a busy machine

# The model waits while the file sys.argv[1] exists, and says by another file that it does.
_HELD = """
import pathlib, sys, time
from cliper.cli.main import run
from cliper.segmenter import Segmenter
held, segment = pathlib.Path(sys.argv[1]), Segmenter.__call__
def wait_and_segment(self, *given):
    while held.exists():
        held.with_suffix(".begun").touch()
        time.sleep(0.01)
    return segment(self, *given)
Segmenter.__call__ = wait_and_segment
sys.exit(run(sys.argv[2:]))
"""


class Process:
    """``cliper serve`` with the tiny checkpoint; its model waits while the file ``held`` exists."""

    def __init__(
        self,
        model: Path,
        *options: str,
        program: tuple[str, ...] = ("-m", "cliper"),
        held: Path | None = None,
        **environment: str,
    ) -> None:
        program = program if held is None else ("-c", _HELD, str(held))
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
        """Stop it; its exit code and what it wrote on the error stream."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> tuple[int, str]:
        """Wait until it has stopped; its exit code and what it wrote on the error stream."""
        _, said = self.process.communicate(timeout=TIMEOUT)
        return self.process.returncode, said

    @property
    def listens(self) -> bool:
        try:
            httpx.get(f"{self.address}/healthz", timeout=TIMEOUT)
        except httpx.TransportError:
            return False
        return True

    @property
    def in_flight(self) -> int:
        """Admitted requests that are not answered."""
        text = httpx.get(f"{self.address}/metrics", timeout=TIMEOUT).text
        return int(float(re.findall(r"^cliper_requests_in_flight (\S+)$", text, re.MULTILINE)[0]))


def form_of(image: bytes) -> dict[str, Any]:
    """A form with a small size."""
    return {"image": ("a.png", image), "classes": (None, "cat"), "settings": (None, '{"size": 64}')}


def ask(address: str, image: bytes, **headers: str) -> httpx.Response:
    """Response of POST /v1/segment to a form."""
    return httpx.post(f"{address}/v1/segment", files=form_of(image), headers=headers, timeout=TIMEOUT)


@contextmanager
def connected(address: str) -> Iterator[socket.socket]:
    """A connection that has sent nothing yet."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT) as found:
        yield found


def head(path: str, length: int) -> bytes:
    """Headers of a JSON request."""
    fields = f"Host: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    return f"POST {path} HTTP/1.1\r\n{fields}".encode()


def read_response(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of a response."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, response.read()


def read_to_end(connection: socket.socket) -> bytes:
    """All that comes until the connection ends, in whatever way."""
    found = bytearray()
    with suppress(ConnectionError):
        while some := connection.recv(65536):
            found += some
    return bytes(found)


def wait_for(condition: Callable[[], object]) -> None:
    """Poll until a condition holds."""
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
