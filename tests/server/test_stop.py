"""SIGTERM of the real process: admitted requests are answered, later ones get 503.

The model is held where a test needs to know what was let in when the signal came, so that nothing depends on speed.
"""

from __future__ import annotations

import base64
import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from server_process import TIMEOUT, Held, Process, ask, connected, form_of, head, number_of, read_answer, wait_for

pytestmark = [pytest.mark.full, pytest.mark.allow_hosts(["127.0.0.1"]), pytest.mark.enable_socket]


@pytest.fixture
def held(clip_folder: Path, tmp_path: Path, processes: Callable[[Process], None]) -> Iterator[Held]:
    """With a queue of eight, and a timeout longer than the test."""
    found = Held(clip_folder, tmp_path, "--queue-size", "8", "--timeout", str(10 * TIMEOUT))
    processes(found)
    yield found
    found.release()


def let_in(held: Held, image: bytes, count: int) -> tuple[list[threading.Thread], list[httpx.Response]]:
    """Clients that wait for the model, which is blocked; their responses are added to the list."""
    answered: list[httpx.Response] = []
    threads = [
        threading.Thread(target=lambda: answered.append(ask(held.address, image)), daemon=True) for _ in range(count)
    ]
    held.hold()
    for thread in threads:
        thread.start()
    wait_for(lambda: held.in_flight == count)
    return threads, answered


def test_sigterm_finishes_admitted_requests(held: Held, image_file: bytes) -> None:
    threads, answered = let_in(held, image_file, 8)
    assert ask(held.address, image_file).status_code == 429
    held.process.send_signal(signal.SIGTERM)
    wait_for(lambda: held.stopping)
    late = ask(held.address, image_file)
    assert (late.status_code, late.headers["connection"]) == (503, "close")
    assert answered == []
    held.release()
    assert held.ended() == (0, "")
    for thread in threads:
        thread.join(TIMEOUT)
    assert [(one.status_code, one.headers["connection"]) for one in answered] == [(200, "close")] * 8
    assert [one.json()["width"] for one in answered] == [96] * 8


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_stops_after_the_current_batch(held: Held, image_file: bytes, number: int) -> None:
    threads, answered = let_in(held, image_file, 3)
    held.process.send_signal(number)
    wait_for(lambda: held.stopping)
    held.process.send_signal(number)
    for thread in threads:
        thread.join(TIMEOUT)
    assert [(one.status_code, set(one.json())) for one in answered] == [(503, {"error"})] * 3
    wait_for(lambda: not listens(held.address))
    for _ in range(3):  # of somebody who has no patience: the model has begun a picture, and its thread cannot be left
        held.process.send_signal(number)
    held.release()
    assert held.ended() == (0, "")


def listens(address: str) -> bool:
    try:
        httpx.get(f"{address}/healthz", timeout=TIMEOUT)
    except httpx.TransportError:
        return False
    return True


def test_sigterm_under_load_loses_no_response(held: Held, image_file: bytes) -> None:
    """Sixteen clients send requests without a pause; each response that the server counted arrived."""
    statuses: list[int] = []

    def client() -> None:
        with httpx.Client(timeout=TIMEOUT) as session:
            while True:
                try:
                    answered = session.post(f"{held.address}/v1/segment", files=form_of(image_file))
                except httpx.ConnectError:
                    return  # nobody listens any more
                except httpx.TransportError:
                    continue  # the end of a connection crossed with this question
                statuses.append(answered.status_code)

    threads = [threading.Thread(target=client, daemon=True) for _ in range(16)]
    for thread in threads:
        thread.start()
    wait_for(lambda: statuses.count(200) >= 20)
    held.hold()
    seen: list[str] = []
    wait_for(lambda: seen.append(held.metrics) or number_of("cliper_requests_in_flight", seen[-1]) == 8)
    wait_for(lambda: 429 in statuses)
    before = number_of('cliper_requests_total{method="POST",path="/v1/segment",status="200"}', seen[-1])
    held.process.send_signal(signal.SIGTERM)
    wait_for(lambda: 503 in statuses)
    held.release()
    assert held.ended() == (0, "")
    for thread in threads:
        thread.join(TIMEOUT)
    assert not any(thread.is_alive() for thread in threads)
    assert set(statuses) == {200, 429, 503}
    assert held.answers()[200] == statuses.count(200)
    assert statuses.count(200) >= before + 8


def test_half_sent_request_is_finished_after_sigterm(serve: Callable[..., Process], image_file: bytes) -> None:
    service = serve("--timeout", str(10 * TIMEOUT))
    body = json.dumps({"image": base64.b64encode(image_file).decode(), "classes": "cat"}).encode()
    with connected(service.address) as slow:
        slow.sendall(head("/v1/segment", len(body)) + body[:100])
        wait_for(lambda: service.in_flight == 1)
        service.process.send_signal(signal.SIGTERM)
        wait_for(lambda: service.stopping)
        refused = ask(service.address, image_file)
        assert (refused.status_code, refused.headers["connection"]) == (503, "close")
        slow.sendall(body[100:])
        status, answer = read_answer(slow)
    assert status == 200
    assert json.loads(answer)["width"] == 96
    assert service.ended() == (0, "")


def test_incomplete_request_does_not_delay_sigterm(serve: Callable[..., Process]) -> None:
    service = serve("--timeout", "2")
    given_up = 'cliper_requests_total{method="POST",path="/setup",status="408"}'
    with connected(service.address) as slow, connected(service.address):  # the second says nothing at all
        slow.sendall(head("/setup", 9) + b"{")
        # Where the machine is so slow that its time is over before it is seen, the end is the easier.
        wait_for(lambda: "cliper_requests_in_flight 1.0" in (found := service.metrics) or number_of(given_up, found))
        assert service.end() == (0, "")
        assert read_answer(slow)[0] == 408
