"""``cliper serve`` against another revision of it: latency, and behaviour under load, over loopback.

    python benchmarks/service_load.py --baseline OTHER/src     # 50 clients, 2,000 requests each, about ten minutes
    python benchmarks/service_load.py --baseline OTHER/src --requests 60 --clients 8 --rounds 3 --pings 50
    python benchmarks/service_load.py                          # this revision alone

1. Both servers run at once and are asked by one client on a kept connection each: ``GET /healthz``, one server after
   the other; in turns an image of 160x104 at size 112, and one of 640x480 at the model's own settings. Goals: at most
   1 ms, 0.5 and 0.8 of the baseline.
2. Then one server at a time: one client, which asks again when it has its response, for a tenth of the requests; many
   clients; and many clients of a server with ``--batch-size 8`` (only this revision).

Each request has an image file of its own (the bundled photo made smaller, with another comment), so that no request
finds its image encoded; the same file again is measured apart. Class lists alternate. After a 429 a client waits for
``Retry-After`` and sends the request again. The seconds are those of the successful request; "with waits" counts from
the first try. Memory is the server's own resident memory. Clients and servers share the processors of the machine.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import io
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

import cliper
from machine import RESULTS, write_report

CLASSES = ("horse; grass; sky; tree", "person; dog", "cow; horse; fence; water; road")
LOAD = (320, 208)  # width and height
LATENCY: dict[str, tuple[tuple[int, int], dict[str, Any], float]] = {
    "160x104 at size 112": ((160, 104), {"size": 112}, 0.5),
    "640x480 at the defaults": ((640, 480), {}, 0.8),
}
GOAL_HEALTHZ_MS = 1.0
_numbers = itertools.count()


def request_body(size: tuple[int, int], settings: dict[str, Any], *, number: int | None = None) -> bytes:
    """A request as JSON; its file differs from all others unless it has a number."""
    number = next(_numbers) if number is None else number
    stream = io.BytesIO()
    photo = Image.open(cliper.example_photo()).convert("RGB").resize(size)
    photo.save(stream, "JPEG", quality=90, comment=f"{os.getpid()} {number}")
    image = base64.b64encode(stream.getvalue()).decode()
    return json.dumps({"image": image, "classes": CLASSES[number % len(CLASSES)], "settings": settings}).encode()


class Server:
    """``cliper serve`` of a source folder, and a client of it."""

    def __init__(self, source: Path, model: str, *options: str) -> None:
        command = [sys.executable, "-m", "cliper", "serve", "--port", "0", "--model", model, *options]
        environment = {**os.environ, "PYTHONPATH": str(source)}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().split()[-1].removeprefix("http://")

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.address, timeout=300)

    @property
    def resident(self) -> int:
        """Bytes that the process holds (Linux)."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0]) * 1024

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(120)


@contextlib.contextmanager
def serving(source: Path, model: str, *options: str) -> Iterator[Server]:
    server = Server(source, model, *options)
    try:
        yield server
    finally:
        server.end()


def send(connection: http.client.HTTPConnection, body: bytes | None) -> tuple[http.client.HTTPResponse, float]:
    """POST /v1/segment, or GET /healthz without a body: the response, which has been read, and seconds."""
    started = time.perf_counter()
    if body is None:
        connection.request("GET", "/healthz")
    else:
        connection.request("POST", "/v1/segment", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    response.read()
    return response, time.perf_counter() - started


def measure_latency(sources: dict[str, Path], model: str, rounds: int, pings: int) -> dict[str, Any]:
    """Medians of both servers."""
    with contextlib.ExitStack() as ends:
        servers = {name: ends.enter_context(serving(source, model)) for name, source in sources.items()}
        connections = {name: server.connect() for name, server in servers.items()}

        def median(make: Any, count: int, warm: int) -> dict[str, float]:
            seconds: dict[str, list[float]] = {name: [] for name in connections}
            for number in range(warm + count):
                for name, connection in connections.items():
                    response, taken = send(connection, make(number))
                    if response.status != 200:
                        raise RuntimeError(f"{name}: expected 200, got {response.status}")
                    if number >= warm:
                        seconds[name].append(taken)
            return {name: statistics.median(values) for name, values in seconds.items()}

        found: dict[str, Any] = {}
        found["GET /healthz"] = {}
        for name, connection in connections.items():
            times = [send(connection, None)[1] for _ in range(pings)]
            found["GET /healthz"][name] = round(1000 * statistics.median(times), 3)
        found["GET /healthz"] |= {"unit": "ms", "goal": GOAL_HEALTHZ_MS}
        for title, (size, settings, goal) in LATENCY.items():
            row = median(lambda _, size=size, settings=settings: request_body(size, settings), rounds, len(CLASSES))
            same = median(lambda _, size=size, settings=settings: request_body(size, settings, number=0), rounds, 1)
            found[title] = {
                **{name: round(value, 4) for name, value in row.items()},
                "ratio": round(row["now"] / row["before"], 3) if "before" in row else None,
                "same file again": {name: round(value, 4) for name, value in same.items()},
                "unit": "s",
                "goal": goal,
            }
        return found


@dataclass
class Tally:
    """Results of clients.

    Args:
        left: requests that have not begun.
        seconds: of each response with status 200.
        waits: of each, from the first try on.
        statuses: number of responses by status, and of connection errors by name.
        broken: what ended a client.
    """

    left: int
    seconds: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    broken: BaseException | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


def run_client(server: Server, settings: dict[str, Any], tally: Tally) -> None:
    """Send requests until none is left; a 429 is sent again."""
    connection = server.connect()
    while True:
        with tally.lock:
            if not tally.left or tally.broken:
                return
            tally.left -= 1
        body = request_body(LOAD, settings)
        first = time.perf_counter()
        while True:
            try:
                response, taken = send(connection, body)
                status = str(response.status)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                status = type(error).__name__
            with tally.lock:
                tally.statuses[status] += 1
                if status == "200":
                    tally.seconds.append(taken)
                    tally.waits.append(time.perf_counter() - first)
            if status != "429":
                break
            time.sleep(float(response.headers["Retry-After"]))


def measure_load(
    source: Path, model: str, size: int, clients: int, requests: int, options: tuple[str, ...]
) -> dict[str, Any]:
    """Start a server, send it requests by many clients, and end it."""
    server = Server(source, model, *options)
    try:
        settings = {"size": size}
        run_client(server, settings, Tally(2 * len(CLASSES)))  # texts are encoded, memory is taken
        connection = server.connect()
        connection.request("GET", "/v1/models")
        served = json.loads(connection.getresponse().read())["models"][0]
        tally, memory = Tally(requests), {0: server.resident}

        def watched() -> None:
            try:
                run_client(server, settings, tally)
            except BaseException as error:
                tally.broken = tally.broken or error

        threads = [threading.Thread(target=watched, daemon=True) for _ in range(clients)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            memory[len(tally.seconds)] = server.resident
            time.sleep(0.1)
        seconds = time.perf_counter() - started
        memory[len(tally.seconds)] = server.resident
        if tally.broken:
            raise tally.broken
    finally:
        code = server.end()
    answered = len(tally.seconds)

    def held(share: float) -> float:
        """MiB after a share of the responses; the count may have been passed between two looks."""
        return round(next(memory[n] for n in sorted(memory) if n >= share * answered) / 2**20, 1)

    others = {status: count for status, count in tally.statuses.items() if status not in ("200", "429")}
    return {
        "clients": clients,
        "requests": requests,
        "batch": served["batch"],
        "queue": served["limits"]["queue"],
        "answered": answered,
        "requests_per_second": round(answered / seconds, 2),
        "seconds": {"p50": percentile(tally.seconds, 50), "p99": percentile(tally.seconds, 99)},
        "seconds_with_waits": {"p50": percentile(tally.waits, 50), "p99": percentile(tally.waits, 99)},
        "refused_429": tally.statuses["429"],
        "other_errors": others,
        "memory_mib": {
            "after a tenth": held(0.1),
            "after half": held(0.5),
            "at the end": held(1.0),
            "most": round(max(memory.values()) / 2**20, 1),
        },
        "exit_code": code,
    }


def percentile(values: list[float], share: int) -> float:
    """The least of the values that so many percent do not exceed (nearest rank)."""
    return round(sorted(values)[math.ceil(len(values) * share / 100) - 1], 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", type=Path, help="source folder (src) of the other revision")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--size", type=int, default=112, help="the setting size of the requests under load")
    parser.add_argument("--rounds", type=int, default=30, help="requests of each latency")
    parser.add_argument("--pings", type=int, default=500, help="requests of GET /healthz")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the report")
    given = parser.parse_args()
    sources = {"now": Path(cliper.__file__).resolve().parents[1]}
    if given.baseline is not None:
        sources = {"before": given.baseline.resolve(), **sources}
    report: dict[str, Any] = {
        "model": given.model,
        "image": LOAD,
        "settings": {"size": given.size},
        "classes": CLASSES,
        "baseline": None if given.baseline is None else revision(given.baseline),
        "server_versions": {name: version(name) for name in ("fastapi", "starlette", "uvicorn", "h11")},
        "latency": measure_latency(sources, given.model, given.rounds, given.pings),
        "ways": {},
    }
    print(json.dumps(report["latency"], indent=1), flush=True)
    few = max(10, given.requests // 10)
    ways: dict[str, tuple[str, int, int, tuple[str, ...]]] = {
        "one client": ("now", 1, few, ()),
        "many clients": ("now", given.clients, given.requests, ()),
        "many clients, batches": ("now", given.clients, given.requests, ("--batch-size", "8")),
    }
    if given.baseline is not None:
        ways = {
            "one client, before": ("before", 1, few, ()),
            "many clients, before": ("before", given.clients, given.requests, ()),
            **ways,
        }
    for way, (name, clients, requests, options) in ways.items():
        report["ways"][way] = measure_load(sources[name], given.model, given.size, clients, requests, options)
        print(way, json.dumps(report["ways"][way]), flush=True)
    print(write_report("service_load", report, given.out))


def revision(folder: Path) -> str:
    """The commit of a source folder."""
    done = subprocess.run(["git", "-C", str(folder), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
