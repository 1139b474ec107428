"""Slow clients and idle connections: over loopback, in uvicorn, as ``cliper serve`` runs it."""

from __future__ import annotations

import base64
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from cliper.segmenter import Segmenter
from cliper.server import app, run
from cliper.server.admission import Service
from cliper.server.hosts import listen
from cliper.server.limits import Limits
from cliper.server.models import ServedModel

pytestmark = [pytest.mark.allow_hosts(["127.0.0.1"]), pytest.mark.enable_socket]

TIMEOUT = 60.0  # seconds that anything may take on a busy machine
BUFFER = 16 * 1024  # bytes that each side's system takes, about; with the 64 KiB of the event loop
SEND_BUFFER = run._SEND_BUFFER
LARGE = 2_000_000  # bytes of an answer: far more than these

SETUP = b"POST /setup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + TIMEOUT
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@dataclass(frozen=True)
class Answering:
    """A server that listens."""

    service: Service
    port: int

    def connect(self) -> socket.socket:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        client.settimeout(TIMEOUT)
        client.connect(("127.0.0.1", self.port))
        return client

    def ask(self, body: bytes) -> socket.socket:
        """A request whose answer is not read yet."""
        client = self.connect()
        head = "POST /v1/segment HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        return client

    @property
    def cut(self) -> bool:
        return b"cliper_slow_clients_total 1.0" in self.service.metrics.text()


def rest(client: socket.socket) -> bytes:
    """All that comes until the connection ends, in whatever way."""
    found = bytearray()
    try:
        while some := client.recv(65536):
            found += some
    except ConnectionError:
        pass
    return bytes(found)


@pytest.fixture
def answering(tiny: Segmenter, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Answering]]:
    """Start a service with limits of its own; it ends as after SIGTERM."""
    servers: list[Any] = []
    real = run._Server

    def noted(*given: Any) -> Any:
        servers.append(real(*given))
        return servers[-1]

    monkeypatch.setattr(run, "_Server", noted)
    monkeypatch.setattr(run, "_SEND_BUFFER", BUFFER)
    threads: list[threading.Thread] = []
    with ExitStack() as ends:

        def start(**limits: Any) -> Answering:
            place = ends.enter_context(listen("127.0.0.1", 0))
            service = ends.enter_context(Service(ServedModel(tiny, Limits(**limits))))
            ready = threading.Event()
            thread = threading.Thread(target=lambda: run.serve(service, place, ready=lambda _: ready.set()))
            threads.append(thread)
            thread.start()
            assert ready.wait(TIMEOUT)
            return Answering(service, place.getsockname()[1])

        yield start
        for server in servers:
            server.handle_exit(signal.SIGTERM, None)
        for thread in threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive()


@pytest.fixture
def question(image_file: bytes) -> bytes:
    return json.dumps({"image": base64.b64encode(image_file).decode(), "classes": "cat"}).encode()


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are large."""
    monkeypatch.setattr(app, "segment_response", lambda *_: {"masks": "x" * LARGE})


@pytest.mark.usefixtures("large")
def test_request_is_in_flight_until_its_response_is_read(answering: Callable[..., Answering], question: bytes) -> None:
    here = answering(queue=1)
    client = here.ask(question)
    head = client.recv(1000)
    assert head.startswith(b"HTTP/1.1 200 ")
    until(lambda: here.service.in_flight == 1)
    with here.ask(question) as other:
        assert rest(other).startswith(b"HTTP/1.1 429 ")
    whole = head + rest(client)
    assert len(json.loads(whole.partition(b"\r\n\r\n")[2])["masks"]) == LARGE
    client.close()
    until(lambda: here.service.in_flight == 0)
    with here.ask(question) as other:
        assert rest(other).startswith(b"HTTP/1.1 200 ")
    assert not here.cut


@pytest.mark.usefixtures("large")
def test_slow_client_is_disconnected(
    answering: Callable[..., Answering], question: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    here = answering(queue=1, seconds=2.0)
    with here.ask(question) as client:
        until(lambda: here.cut)
        until(lambda: here.service.in_flight == 0)
        assert len(rest(client)) < LARGE / 4  # what the buffers held, at most
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("large")
def test_client_that_disconnects_while_reading_leaves_the_queue(
    answering: Callable[..., Answering], question: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    here = answering(queue=1)
    client = here.ask(question)
    assert client.recv(1000)
    client.close()
    until(lambda: here.service.in_flight == 0)
    assert not here.cut
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("first", [b"", SETUP + b"{}"], ids=["a new connection", "one that was answered"])
def test_endless_headers_time_out(
    answering: Callable[..., Answering], monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    """However busily they come."""
    monkeypatch.setattr(run, "_HEADER_SECONDS", 0.5)
    here = answering()
    with here.connect() as client:
        if first:
            client.sendall(first)
            assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
        client.sendall(b"GET /healthz HTTP/1.1\r\n")
        started = time.monotonic()
        gone = False
        while not gone and time.monotonic() < started + TIMEOUT:
            try:
                client.sendall(b"X-A: b\r\n")
            except ConnectionError:
                gone = True
            time.sleep(0.05)
        assert gone


def test_expect_100_continue_of_a_refused_request(answering: Callable[..., Answering]) -> None:
    here = answering(megabytes=0.001)
    head = b"POST /setup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
    with here.connect() as client:
        client.sendall(head + b"Content-Length: 1000000\r\n\r\n")
        said = rest(client)
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in said.lower()
    with here.connect() as client:
        client.sendall(head + b"Connection: close\r\nContent-Length: 2\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 100 ")
        client.sendall(b"{}")
        assert b"HTTP/1.1 200 " in rest(client)


def test_head_requests_of_probes(answering: Callable[..., Answering]) -> None:
    here = answering()
    for path in ("healthz", "readyz"):
        with here.connect() as client:
            client.sendall(f"HEAD /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            said = rest(client)
        assert said.startswith(b"HTTP/1.1 200 ")
        assert said.endswith(b"\r\n\r\n")


def test_request_with_two_lengths_is_refused_and_its_connection_closed(answering: Callable[..., Answering]) -> None:
    """A proxy in front may see another request in it (request smuggling)."""
    here = answering()
    with here.connect() as client:
        two = b"POST /setup HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.sendall(two + b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        said = rest(client)
    assert said.startswith(b"HTTP/1.1 400 ")
    assert said.count(b"HTTP/1.1") == 1
