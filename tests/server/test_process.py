"""The real process, over loopback: ready line, token, health check, misbehaving clients."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest
from server_process import TIMEOUT, Process, ask, connected, form_of, head, read_answer, wait_for

from hostile_images import FILES

pytestmark = [pytest.mark.full, pytest.mark.allow_hosts(["127.0.0.1"]), pytest.mark.enable_socket]


def test_server_answers_and_stops(serve: Callable[..., Process], image_file: bytes) -> None:
    service = serve()
    assert httpx.get(f"{service.address}/readyz", timeout=TIMEOUT).json() == {"status": "ready"}
    answered = ask(service.address, image_file)
    assert (answered.status_code, answered.json()["width"]) == (200, 96)
    assert "server" not in answered.headers
    code, said = service.end()
    assert (code, said) == (0, "")


def test_restart_on_the_same_port_while_a_connection_is_closing(serve: Callable[..., Process]) -> None:
    first = serve()
    port = first.address.rpartition(":")[2]
    with connected(first.address) as client:
        client.sendall(
            b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        )  # kept: the server will close it, and waits then
        assert read_answer(client)[0] == 200
        code, said = first.end()
    assert (code, said) == (0, "")
    second = serve("--port", port)
    assert second.address == first.address
    assert httpx.get(f"{second.address}/readyz", timeout=TIMEOUT).status_code == 200


def test_second_server_on_one_port_is_refused(serve: Callable[..., Process], clip_folder: Path) -> None:
    port = serve().address.rpartition(":")[2]
    command = [sys.executable, "-m", "cliper", "serve", "--port", port, "--model", str(clip_folder)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert f"cannot listen at 127.0.0.1 port {port}" in ended.stderr


def test_token_from_the_environment(serve: Callable[..., Process], image_file: bytes) -> None:
    service = serve(CLIPER_TOKEN="hush-hush")
    assert ask(service.address, image_file).status_code == 401
    assert ask(service.address, image_file, Authorization="Bearer hush-hush").status_code == 200
    code, said = service.end(signal.SIGINT)
    assert (code, said) == (0, "")
    assert "hush" not in service.line


def test_refused_upload_gets_its_response(serve: Callable[..., Process]) -> None:
    service = serve("--max-megabytes", "0.1")
    answered = httpx.post(f"{service.address}/v1/segment", files={"image": bytes(20_000_000)}, timeout=TIMEOUT)
    assert answered.status_code == 413
    assert "at most 0.1 MB" in answered.json()["error"]


def test_malformed_requests_do_not_stop_the_server(serve: Callable[..., Process], image_file: bytes) -> None:
    service = serve()
    for text in (b"\x00" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 200_000):
        with connected(service.address) as strange:
            try:
                strange.sendall(text)
                strange.shutdown(socket.SHUT_WR)
                while strange.recv(65536):
                    pass
            except OSError:  # it may be cut off
                pass
    assert ask(service.address, image_file).status_code == 200


def test_connection_of_a_429_is_kept_open(serve: Callable[..., Process], image_file: bytes) -> None:
    """Longer than servers usually hold one that says nothing (5 s here)."""
    service, kept = serve("--queue-size", "1", "--timeout", str(10 * TIMEOUT)), httpx.Limits(keepalive_expiry=60)
    with connected(service.address) as slow, httpx.Client(timeout=TIMEOUT, limits=kept) as session:
        slow.sendall(head("/setup", 2))
        wait_for(lambda: service.in_flight == 1)
        refused = session.post(f"{service.address}/v1/segment", files=form_of(image_file))
        assert refused.status_code == 429
        before = refused.extensions["network_stream"].get_extra_info("client_addr")
        slow.sendall(b"{}")
        assert read_answer(slow)[0] == 200
        time.sleep(6)
        answered = session.post(f"{service.address}/v1/segment", files=form_of(image_file))
        assert answered.status_code == 200
        assert answered.extensions["network_stream"].get_extra_info("client_addr") == before


def test_health_check_of_the_dockerfile(serve: Callable[..., Process]) -> None:
    text = (Path(__file__).resolve().parents[2] / "Dockerfile").read_text(encoding="utf-8")
    (found,) = re.findall(r"HEALTHCHECK.*\\\n\s*CMD (\[.*\])\n", text)
    _, flag, code = json.loads(found)
    service = serve()
    here = code.replace("http://127.0.0.1:8000", service.address)
    assert here != code
    assert subprocess.run([sys.executable, flag, here], timeout=TIMEOUT).returncode == 0
    service.end()
    assert subprocess.run([sys.executable, flag, here], timeout=TIMEOUT, capture_output=True).returncode != 0


LIMITED = """
import resource, sys
resource.setrlimit(resource.%s, (%d, %d))
from cliper.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


def test_idle_connections_do_not_use_up_the_files(
    clip_folder: Path, processes: Callable[[Process], None], image_file: bytes
) -> None:
    server = Process(clip_folder, program=("-c", LIMITED % ("RLIMIT_NOFILE", 200, 200)))
    processes(server)
    with ExitStack() as idle:
        for _ in range(300):
            idle.enter_context(connected(server.address))
        time.sleep(2)
        assert ask(server.address, image_file).status_code == 200
    code, said = server.end()
    assert code == 0
    assert said.count("\n") <= 1, said


def test_hostile_images_do_not_hold_the_server(
    clip_folder: Path, processes: Callable[[Process], None], image_file: bytes
) -> None:
    """Under a memory limit of 4 GiB; other clients get their responses meanwhile."""
    server = Process(clip_folder, program=("-c", LIMITED % ("RLIMIT_AS", 2**32, 2**32)))
    processes(server)
    statuses: list[int] = []
    ended = threading.Event()

    def other() -> None:
        while not ended.is_set():
            statuses.append(ask(server.address, image_file).status_code)

    client = threading.Thread(target=other)
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
    senders = [threading.Thread(target=send_unless_stopped, args=(server, make()), daemon=True) for make in SLOW]
    for sender in senders:
        sender.start()
    started = time.monotonic()
    assert server.end() == (0, "")
    assert time.monotonic() - started < 60  # --timeout; two decoders may take 10 s each


SLOW = [FILES["scans_30000.jpg"], FILES["comment_16mb.gif"], FILES["tile.tif"]]


def send_unless_stopped(server: Process, image: bytes) -> None:
    with suppress(httpx.TransportError):
        ask(server.address, image)
