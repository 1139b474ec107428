"""The parts of ``benchmarks/service_load.py`` that count: what it reports is what its clients met."""

from __future__ import annotations

import http.client
import importlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def load() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        return importlib.import_module("service_load")


@pytest.mark.parametrize(
    ("values", "share", "wanted"),
    [
        (range(1, 101), 50, 50),
        (range(1, 101), 99, 99),
        (range(1, 101), 100, 100),
        (range(1, 101), 1, 1),
        (range(1, 201), 99, 198),
        (range(1, 2001), 99, 1980),
        ([3, 1, 2], 50, 2),
        ([2, 1], 50, 1),
        ([7], 1, 7),
        ([7], 99, 7),
    ],
)
def test_percentiles(load: ModuleType, values: list[float], share: int, wanted: float) -> None:
    assert load.percentile(list(values), share) == wanted


@settings(deadline=None)  # a busy machine may take any time
@given(values=st.lists(st.integers(0, 30), min_size=1, max_size=150), share=st.integers(1, 100))
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(
    load: ModuleType, values: list[float], share: int
) -> None:
    found = load.percentile(values, share)

    def reaches(value: float) -> bool:
        return 100 * sum(one <= value for one in values) >= share * len(values)

    assert found in values
    assert reaches(found)
    assert not any(reaches(one) for one in values if one < found)


def test_seconds_to_wait(load: ModuleType) -> None:
    assert load.retry_after("0") == 0
    assert load.retry_after("17") == 17
    for value in (None, "", "soon", "-1", "nan", "1e3", "Wed, 21 Oct 2026 07:28:00 GMT"):
        with pytest.raises(http.client.HTTPException, match="Retry-After in seconds"):
            load.retry_after(value)


def test_a_client_that_breaks_ends_them_all(load: ModuleType) -> None:
    tally = load.Tally(10)
    begun = threading.Semaphore(0)
    ended = threading.Event()

    def ask() -> None:
        begun.release()
        with tally.lock:
            tally.left -= 1
            last = tally.left == 7
        if last:
            raise KeyError("masks")
        while not tally.broken:
            ended.wait(0.001)

    with pytest.raises(KeyError, match="masks"):
        load.run_clients(ask, 3, tally, lambda: None)
    assert all(begun.acquire(timeout=0) for _ in range(3))


def test_clients_that_end_well(load: ModuleType) -> None:
    looks: list[int] = []
    asked = threading.Semaphore(0)
    load.run_clients(asked.release, 5, load.Tally(0), lambda: looks.append(1))
    assert all(asked.acquire(timeout=0) for _ in range(5))
    assert not asked.acquire(timeout=0)


Answer = tuple[int, dict[str, str], object]


@contextmanager
def answering(answers: list[Answer]) -> Iterator[int]:
    """The port of a server that gives these answers, in turn."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status, headers, value = answers.pop(0)
            body = json.dumps(value).encode()
            self.send_response(status)
            for name, text in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def ask(load: ModuleType) -> Callable[[list[Answer], int], Any]:
    """Let one client ask for so many pictures; what it met."""

    def asked(answers: list[Answer], requests: int) -> Any:
        tally = load.Tally(requests)
        bodies = dict.fromkeys(load.CLASSES, b"{}")
        with answering(answers) as port:
            load.run_clients(lambda: load.client("127.0.0.1", port, bodies, tally), 1, tally, lambda: None)
        return tally

    return asked


MASKS = {"masks": [1]}


@pytest.mark.enable_socket
@pytest.mark.allow_hosts(["127.0.0.1"])
def test_what_a_client_meets_is_counted(ask: Callable[..., Any], load: ModuleType) -> None:
    answers: list[Answer] = [(200, {}, MASKS)] * len(load.CLASSES)
    answers += [
        (429, {"Retry-After": "0"}, {}),
        (429, {"Retry-After": "0"}, {}),
        (200, {}, {"masks": []}),
        (500, {}, {}),
    ]
    tally = ask(answers, len(load.CLASSES) + 2)
    assert (len(tally.seconds), len(tally.waits), tally.refused, tally.differing) == (4, 4, 2, 1)
    assert tally.errors == {"500": 1}
    assert tally.left == 0
    assert answers == []


@pytest.mark.enable_socket
@pytest.mark.allow_hosts(["127.0.0.1"])
def test_to_be_told_to_wait_but_not_how_long_ends_the_benchmark(ask: Callable[..., Any]) -> None:
    with pytest.raises(http.client.HTTPException, match="expected 429 with Retry-After in seconds, got None"):
        ask([(429, {}, {})], 5)


@pytest.mark.enable_socket
@pytest.mark.allow_hosts(["127.0.0.1"])
def test_an_answer_that_is_none_ends_the_benchmark(ask: Callable[..., Any]) -> None:
    with pytest.raises(KeyError, match="masks"):
        ask([(200, {}, {})], 5)
