"""The real process, over loopback: ready line, token, and what becomes of requests when it is told to stop."""

from __future__ import annotations

import json
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
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.allow_hosts(["127.0.0.1"]), pytest.mark.enable_socket]

LIMIT = 120  # seconds that anything may take on a busy machine


class Process:
    """``cliper serve`` with the tiny checkpoint."""

    def __init__(self, model: Path, *options: str, **environment: str) -> None:
        command = [sys.executable, "-m", "cliper", "serve", "--port", "0", "--model", str(model), "--device", "cpu"]
        self.process = subprocess.Popen(
            [*command, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()  # comes when it is ready, or is empty when it has ended
        found = re.fullmatch(r"tiny at (http://127\.0\.0\.1:\d+)\n", self.line)
        assert found, (self.line, self.end())
        self.address = found[1]

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Tell it to stop; its exit code and what it said on the error stream."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, said


@pytest.fixture
def serve(clip_folder: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(*options: str, **environment: str) -> Process:
        started.append(Process(clip_folder, *options, **environment))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate(timeout=LIMIT)


def ask(address: str, image: bytes, **headers: str) -> httpx.Response:
    form: dict[str, Any] = {"image": ("a.png", image), "classes": (None, "cat"), "settings": (None, '{"size": 64}')}
    return httpx.post(f"{address}/v1/segment", files=form, headers=headers, timeout=LIMIT)


def test_it_answers_and_ends(serve: Callable[..., Process], picture_file: bytes) -> None:
    service = serve()
    assert httpx.get(f"{service.address}/readyz", timeout=LIMIT).json() == {"status": "ready"}
    answered = ask(service.address, picture_file)
    assert (answered.status_code, answered.json()["width"]) == (200, 96)
    assert "server" not in answered.headers
    code, said = service.end()
    assert (code, said) == (0, "")


def test_the_token_of_the_environment(serve: Callable[..., Process], picture_file: bytes) -> None:
    service = serve(CLIPER_TOKEN="hush-hush")
    assert ask(service.address, picture_file).status_code == 401
    assert ask(service.address, picture_file, Authorization="Bearer hush-hush").status_code == 200
    code, said = service.end(signal.SIGINT)
    assert (code, said) == (0, "")
    assert "hush" not in service.line


def test_a_stop_answers_all_that_were_let_in(serve: Callable[..., Process], picture_file: bytes) -> None:
    service = serve("--queue", "8")
    answered: list[httpx.Response] = []

    def client() -> None:
        form: dict[str, Any] = {"image": ("a.png", picture_file), "classes": (None, "cat")}
        form["settings"] = (None, '{"size": 640}')  # long enough that most wait when the last has come
        answered.append(httpx.post(f"{service.address}/v1/segment", files=form, timeout=LIMIT))

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_for(lambda: came(service) == 8)
    code, said = service.end()
    for thread in threads:
        thread.join(LIMIT)
    assert (code, said) == (0, "")
    assert [one.status_code for one in answered] == [200] * 8
    assert answered[-1].headers["connection"] == "close"  # it was answered while the service was stopping


def test_a_stop_under_load_loses_no_request_that_was_let_in(serve: Callable[..., Process], picture_file: bytes) -> None:
    """Sixteen clients ask without a pause. Who is let in is answered; others are told to go, or find nobody there."""
    service = serve("--queue", "8")
    statuses: list[int] = []
    lost: list[float] = []
    form: dict[str, Any] = {"image": ("a.png", picture_file), "classes": (None, "cat")}

    def client() -> None:
        with httpx.Client(timeout=LIMIT) as session:
            while True:
                began = time.monotonic()
                try:
                    statuses.append(session.post(f"{service.address}/v1/segment", files=form).status_code)
                except httpx.ConnectError:
                    return  # nobody listens any more
                except httpx.TransportError:
                    lost.append(began)  # the end crossed with a question that nobody had read
                    return

    threads = [threading.Thread(target=client) for _ in range(16)]
    for thread in threads:
        thread.start()
    wait_for(lambda: statuses.count(200) >= 20)
    before, told_to_stop = len(statuses), time.monotonic()
    code, said = service.end()
    for thread in threads:
        thread.join(LIMIT)
    assert not any(thread.is_alive() for thread in threads)
    assert (code, said) == (0, "")
    assert set(statuses) <= {200, 429, 503}
    assert 503 in statuses[before:]
    assert [began for began in lost if began < told_to_stop] == []


@contextmanager
def connected(address: str) -> Iterator[socket.socket]:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=LIMIT) as found:
        yield found


def read_answer(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of an answer."""
    with connection.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        length = 0
        while (line := stream.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        return status, stream.read(length)


def test_a_request_whose_body_is_half_sent_is_finished_too(serve: Callable[..., Process], picture_file: bytes) -> None:
    import base64

    service = serve()
    body = json.dumps({"image": base64.b64encode(picture_file).decode(), "classes": "cat"}).encode()
    head = (
        f"POST /v1/segment HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with connected(service.address) as slow:
        slow.sendall(head.encode() + body[:100])
        wait_for(lambda: "cliper_requests_inside 1.0" in metrics(service))
        service.process.send_signal(signal.SIGTERM)
        wait_for(lambda: httpx.get(f"{service.address}/readyz", timeout=LIMIT).status_code == 503)
        refused = ask(service.address, picture_file)
        assert (refused.status_code, refused.headers["connection"]) == (503, "close")
        slow.sendall(body[100:])
        status, answer = read_answer(slow)
    assert status == 200
    assert json.loads(answer)["width"] == 96
    _, said = service.process.communicate(timeout=LIMIT)
    assert (service.process.returncode, said) == (0, "")


def test_a_request_that_never_comes_does_not_hold_the_end(serve: Callable[..., Process]) -> None:
    service = serve("--timeout", "1")
    with connected(service.address) as slow, connected(service.address):  # the second says nothing at all
        slow.sendall(b"POST /setup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{")
        wait_for(lambda: "cliper_requests_inside 1.0" in metrics(service))
        code, said = service.end()
        assert read_answer(slow)[0] == 408
    assert (code, said) == (0, "")


def test_a_refused_upload_still_reads_its_answer(serve: Callable[..., Process]) -> None:
    service = serve("--max-megabytes", "0.1")
    answered = httpx.post(f"{service.address}/v1/segment", files={"image": bytes(20_000_000)}, timeout=LIMIT)
    assert answered.status_code == 413
    assert "at most 0.1 MB" in answered.json()["error"]


def test_what_is_no_http_does_not_hurt(serve: Callable[..., Process], picture_file: bytes) -> None:
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
    assert ask(service.address, picture_file).status_code == 200


def came(service: Process) -> int:
    """Requests for a picture that are inside, or were answered."""
    text = metrics(service)
    inside = re.findall(r"^cliper_requests_inside (\S+)", text, re.MULTILINE)
    done = re.findall(r'^cliper_requests_total\{.*path="/v1/segment",status="200"\} (\S+)', text, re.MULTILINE)
    return int(sum(map(float, inside + done)))


def metrics(service: Process) -> str:
    return httpx.get(f"{service.address}/metrics", timeout=LIMIT).text


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_who_is_told_to_wait_may_keep_the_connection(serve: Callable[..., Process], picture_file: bytes) -> None:
    """Longer than servers usually hold one that says nothing (5 s here)."""
    service, kept = serve("--queue", "1"), httpx.Limits(keepalive_expiry=60)
    with connected(service.address) as slow, httpx.Client(timeout=LIMIT, limits=kept) as session:
        slow.sendall(b"POST /setup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n")
        wait_for(lambda: "cliper_requests_inside 1.0" in metrics(service))
        form: dict[str, Any] = {"image": ("a.png", picture_file), "classes": (None, "cat")}
        refused = session.post(f"{service.address}/v1/segment", files=form)
        assert refused.status_code == 429
        before = refused.extensions["network_stream"].get_extra_info("client_addr")
        slow.sendall(b"{}")
        assert read_answer(slow)[0] == 200
        time.sleep(6)
        answered = session.post(f"{service.address}/v1/segment", files=form)
        assert answered.status_code == 200
        assert answered.extensions["network_stream"].get_extra_info("client_addr") == before


def test_the_health_check_of_the_image(serve: Callable[..., Process]) -> None:
    text = (Path(__file__).resolve().parents[3] / "Dockerfile").read_text(encoding="utf-8")
    (found,) = re.findall(r"HEALTHCHECK.*\\\n\s*CMD (\[.*\])\n", text)
    _, flag, code = json.loads(found)
    service = serve()
    here = code.replace("http://127.0.0.1:8000", service.address)
    assert here != code
    assert subprocess.run([sys.executable, flag, here], timeout=LIMIT).returncode == 0
    service.end()
    assert subprocess.run([sys.executable, flag, here], timeout=LIMIT, capture_output=True).returncode != 0
