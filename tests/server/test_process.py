"""The real process, over loopback: start, stop, attacks on connections, hostile images under a memory limit."""

from __future__ import annotations

import base64
import json
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest
from server_process import TIMEOUT, Process, ask, connected, form_of, head, read_response, read_to_end, wait_for

from hostile_images import FILES

pytestmark = [pytest.mark.full, pytest.mark.allow_hosts(["127.0.0.1"]), pytest.mark.enable_socket]

Serve = Callable[..., Process]


def test_server_answers_stops_and_starts_again_on_its_port(serve: Serve, image_file: bytes) -> None:
    first = serve()
    port = first.address.rpartition(":")[2]
    response = ask(first.address, image_file)
    assert (response.status_code, response.json()["width"]) == (200, 96)
    assert "server" not in response.headers
    with connected(first.address) as client:  # the server closes it, so the port is in TIME_WAIT
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert read_response(client)[0] == 200
        assert first.end() == (0, "")
    second = serve("--port", port, CLIPER_TOKEN="hush-hush")
    assert second.address == first.address
    assert ask(second.address, image_file).status_code == 401
    assert ask(second.address, image_file, Authorization="Bearer hush-hush").status_code == 200
    assert "hush" not in second.line
    assert second.end(signal.SIGINT) == (0, "")


def test_refused_upload_gets_its_response(serve: Serve) -> None:
    server = serve("--max-megabytes", "0.1")
    response = httpx.post(f"{server.address}/v1/segment", files={"image": bytes(20_000_000)}, timeout=TIMEOUT)
    assert response.status_code == 413
    assert "at most 0.1 MB" in response.json()["error"]


def test_malformed_requests_do_not_stop_the_server(serve: Serve, image_file: bytes) -> None:
    server = serve()
    for text in (b"\x00" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 200_000):
        with connected(server.address) as client, suppress(OSError):  # it may be cut off
            client.sendall(text)
            client.shutdown(socket.SHUT_WR)
            read_to_end(client)
    with connected(server.address) as client:  # another server may see two requests in it (request smuggling)
        two = b"POST /setup HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.sendall(two + b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        said = read_to_end(client)
    assert said.startswith(b"HTTP/1.1 400 ")
    assert said.count(b"HTTP/1.1") == 1
    assert ask(server.address, image_file).status_code == 200
    assert server.end() == (0, "")


LIMITED = """
import resource, sys
resource.setrlimit(resource.%s, (%d, %d))
from cliper.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


def test_idle_connections_do_not_use_up_the_files(serve: Serve, image_file: bytes) -> None:
    server = serve(program=("-c", LIMITED % ("RLIMIT_NOFILE", 200, 200)))
    with ExitStack() as idle:
        for _ in range(300):
            idle.enter_context(connected(server.address))
        time.sleep(2)
        assert ask(server.address, image_file).status_code == 200
    code, said = server.end()
    assert code == 0
    assert said.count("\n") <= 1, said


HEADERS_IN_HALF_A_SECOND = """
import sys
from cliper.cli.main import run
from cliper.server import run as server
server._IDLE_SECONDS = 0.5
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.parametrize("first", [b"", head("/setup", 2) + b"{}"], ids=["new", "answered"])
def test_endless_headers_time_out(serve: Serve, first: bytes) -> None:
    server = serve(program=("-c", HEADERS_IN_HALF_A_SECOND))
    with connected(server.address) as client:
        if first:
            client.sendall(first)
            assert read_response(client)[0] == 200
        client.sendall(b"GET /healthz HTTP/1.1\r\n")
        end = time.monotonic() + TIMEOUT
        with suppress(ConnectionError):
            while time.monotonic() < end:
                client.sendall(b"X-A: b\r\n")
                time.sleep(0.05)
        assert time.monotonic() < end


SLOW = [FILES["scans_30000.jpg"], FILES["comment_16mb.gif"], FILES["tile.tif"]]


def test_hostile_images_do_not_hold_the_server(serve: Serve, image_file: bytes) -> None:
    """Under a memory limit of 4 GiB; other clients get their responses meanwhile, and SIGTERM is honoured."""
    server = serve(program=("-c", LIMITED % ("RLIMIT_AS", 2**32, 2**32)))
    statuses: list[int] = []
    ended = threading.Event()

    def ask_usual() -> None:
        while not ended.is_set():
            statuses.append(ask(server.address, image_file).status_code)

    def ask_hostile(image: bytes) -> None:
        with suppress(httpx.TransportError):
            ask(server.address, image)

    client = threading.Thread(target=ask_usual)
    client.start()
    try:
        for name, make in FILES.items():
            response = ask(server.address, make())
            assert response.status_code in (200, 413, 422), (name, response.text)
            assert response.status_code == 200 or response.json()["error"]
    finally:
        ended.set()
        client.join(TIMEOUT)
    assert set(statuses) == {200}
    for make in SLOW:
        threading.Thread(target=ask_hostile, args=(make(),), daemon=True).start()
    started = time.monotonic()
    assert server.end() == (0, "")
    assert time.monotonic() - started < 60  # --timeout; two decoders may take 10 s each


def ask_in_threads(server: Process, image: bytes, count: int) -> tuple[list[threading.Thread], list[httpx.Response]]:
    """Clients that wait for the model, which is held; their responses are added to the list."""
    responses: list[httpx.Response] = []
    threads = [
        threading.Thread(target=lambda: responses.append(ask(server.address, image)), daemon=True) for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    wait_for(lambda: server.in_flight == count)
    return threads, responses


@pytest.fixture
def held(serve: Serve, tmp_path: Path) -> Process:
    """Its model waits while ``tmp_path / "held"`` exists; a queue of eight, and a timeout longer than the test."""
    return serve("--queue-size", "8", "--timeout", str(10 * TIMEOUT), held=tmp_path / "held")


def test_second_ctrl_c_stops_after_the_current_batch(held: Process, image_file: bytes, tmp_path: Path) -> None:
    (tmp_path / "held").touch()
    threads, responses = ask_in_threads(held, image_file, 3)
    wait_for((tmp_path / "held.begun").exists)
    held.process.send_signal(signal.SIGINT)
    wait_for(lambda: not held.listens)
    held.process.send_signal(signal.SIGINT)
    for thread in threads:
        thread.join(TIMEOUT)
    assert [(one.status_code, set(one.json())) for one in responses] == [(503, {"error"})] * 3
    for _ in range(3):  # the model has begun an image, and its thread cannot be interrupted
        held.process.send_signal(signal.SIGINT)
    (tmp_path / "held").unlink()
    assert held.ended() == (0, "")


def test_connection_stays_open_after_a_429(held: Process, image_file: bytes, tmp_path: Path) -> None:
    (tmp_path / "held").touch()
    threads, _ = ask_in_threads(held, image_file, 8)
    with connected(held.address) as client:
        client.sendall(head("/setup", 2) + b"{}")
        assert read_response(client)[0] == 429
        (tmp_path / "held").unlink()
        threads[0].join(TIMEOUT)
        client.sendall(head("/setup", 2) + b"{}")
        assert read_response(client)[0] == 200


def test_incomplete_request_does_not_delay_sigterm(serve: Serve) -> None:
    server = serve("--timeout", "2")
    with connected(server.address) as slow, connected(server.address):  # the second sends nothing at all
        slow.sendall(head("/setup", 9) + b"{")
        time.sleep(0.5)
        assert server.end() == (0, "")
        assert read_response(slow)[0] == 408


def test_sigterm_under_load_loses_no_admitted_request(held: Process, image_file: bytes, tmp_path: Path) -> None:
    """Sixteen clients send requests without a pause, and a body is on its way; all that were admitted are answered."""
    body = json.dumps({"image": base64.b64encode(image_file).decode(), "classes": "cat"}).encode()
    statuses: list[int] = []

    def client() -> None:
        with httpx.Client(timeout=TIMEOUT) as session:
            while True:
                try:
                    response = session.post(f"{held.address}/v1/segment", files=form_of(image_file))
                except httpx.ConnectError:
                    return  # the server does not listen any more
                except httpx.TransportError:
                    continue  # the server closed the connection while it was idle
                statuses.append(response.status_code)

    with connected(held.address) as slow:
        slow.sendall(head("/v1/segment", len(body)) + body[:100])
        wait_for(lambda: held.in_flight == 1)
        threads = [threading.Thread(target=client, daemon=True) for _ in range(16)]
        for thread in threads:
            thread.start()
        wait_for(lambda: statuses.count(200) >= 20)
        (tmp_path / "held").touch()
        wait_for(lambda: held.in_flight == 8)
        before = statuses.count(200)
        held.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not held.listens)
        slow.sendall(body[100:])
        (tmp_path / "held").unlink()
        assert json.loads(read_response(slow)[1])["width"] == 96
    assert held.ended() == (0, "")
    for thread in threads:
        thread.join(TIMEOUT)
    assert not any(thread.is_alive() for thread in threads)
    assert set(statuses) <= {200, 429}
    assert statuses.count(200) >= before + 7
