"""``cliper serve`` under load: requests per second, p50 and p99, refusals, errors, and memory, over loopback.

    python benchmarks/service_load.py                                  # 50 clients, 2,000 requests, some minutes
    python benchmarks/service_load.py --requests 100 --clients 8       # a quick check

Three ways, one after the other, each with its own server process, and clients in this process:

- one client: sends the next request after the response; the server processes images one by one. A tenth of the requests
- many clients: the server's defaults. On a CPU it processes images one by one, too
- many clients, batches: as before with ``--batch-size 8``

Each client sends the bundled photo, made smaller, with a small ``size``, so that 2,000 requests end soon; the class
lists alternate. After a 429 a client waits for ``Retry-After`` and sends the request again. The seconds are those of
the successful request; "with waits" counts from the first try. Clients and server share the processors of the machine.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

from cliper.examples import example_photo
from machine import RESULTS, write_report

CLASSES = ("horse; grass; sky; tree", "person; dog", "cow; horse; fence; water; road")
WIDTH, HEIGHT = 320, 208


@dataclass
class Tally:
    """What clients met.

    Args:
        left: requests that nobody has begun.
        seconds: of each answer.
        waits: of each answer, from the first try on.
        refused: times that 429 came.
        errors: what else came, and how often.
        areas: by class list, what the first answer was; all others are compared with it.
        differing: answers that were not the first one's.
        broken: what ended a client that should not have.
    """

    left: int
    seconds: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    refused: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    areas: dict[str, Any] = field(default_factory=dict)
    differing: int = 0
    broken: BaseException | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


def body_of(classes: str, size: int) -> bytes:
    """A request's JSON."""
    stream = io.BytesIO()
    Image.open(example_photo()).convert("RGB").resize((WIDTH, HEIGHT)).save(stream, "JPEG", quality=90)
    image = base64.b64encode(stream.getvalue()).decode()
    return json.dumps({"image": image, "classes": classes, "settings": {"size": size}}).encode()


def client(host: str, port: int, bodies: dict[str, bytes], tally: Tally) -> None:
    """Ask until no request is left, or a client is broken.

    Raises:
        OSError, http.client.HTTPException: whoever answers does not answer as the service does.
    """
    connection = http.client.HTTPConnection(host, port, timeout=300)
    while True:
        with tally.lock:
            if not tally.left or tally.broken:
                return
            tally.left -= 1
            classes = CLASSES[tally.left % len(CLASSES)]
        first = time.perf_counter()
        while True:
            began = time.perf_counter()
            try:
                connection.request("POST", "/v1/segment", bodies[classes], {"Content-Type": "application/json"})
                answer = connection.getresponse()
                text, status = answer.read(), str(answer.status)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                text, status = b"", type(error).__name__
            now = time.perf_counter()
            if status != "429":
                break
            with tally.lock:
                tally.refused += 1
            time.sleep(retry_after(answer.headers["Retry-After"]))
        with tally.lock:
            if status == "200":
                tally.seconds.append(now - began)
                tally.waits.append(now - first)
                masks = json.loads(text)["masks"]
                tally.differing += tally.areas.setdefault(classes, masks) != masks
            else:
                tally.errors[status] = tally.errors.get(status, 0) + 1


def retry_after(value: str | None) -> float:
    """The seconds of a header Retry-After.

    Raises:
        http.client.HTTPException: there is none, or it has no seconds.
    """
    if value is None or not value.isascii() or not value.isdigit():
        raise http.client.HTTPException(f"expected 429 with Retry-After in seconds, got {value!r}")
    return float(value)


def run_clients(ask: Callable[[], None], count: int, tally: Tally, look: Callable[[], None]) -> None:
    """Run clients in threads until all have ended.

    Args:
        ask: what each does.
        count: how many there are.
        tally: theirs.
        look: done again and again meanwhile.

    Raises:
        BaseException: what the first of them that broke raised; the others ask for nothing more then.
    """

    def watched() -> None:
        try:
            ask()
        except BaseException as error:
            with tally.lock:
                tally.broken = tally.broken or error

    threads = [threading.Thread(target=watched, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        look()
        time.sleep(0.1)
    if tally.broken:
        raise tally.broken


def resident(process: int) -> int:
    """Bytes that a process holds (Linux)."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/{process}/status has no VmRSS")


def measure(options: list[str], model: str, size: int, clients: int, requests: int) -> dict[str, Any]:
    """Start a server, ask it, and end it."""
    command = [sys.executable, "-m", "cliper", "serve", "--port", "0", "--model", model, *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        address = server.stdout.readline().split()[-1].removeprefix("http://")
        host, port = address.split(":")
        bodies = {classes: body_of(classes, size) for classes in CLASSES}
        client(host, int(port), bodies, Tally(2 * len(CLASSES)))  # texts are encoded, memory is taken
        described = http.client.HTTPConnection(host, int(port))
        described.request("GET", "/v1/models")
        served = json.loads(described.getresponse().read())["models"][0]
        tally = Tally(requests)
        memory: dict[int, int] = {}

        def look() -> None:
            memory[len(tally.seconds)] = resident(server.pid)

        began = time.perf_counter()
        run_clients(lambda: client(host, int(port), bodies, tally), clients, tally, look)
        seconds = time.perf_counter() - began
        look()
    finally:
        server.terminate()
        code = server.wait(120)
    answered = len(tally.seconds)
    if not answered:
        raise RuntimeError(f"expected answers, got none; errors: {tally.errors}")
    # What was held when so many tenths of the answers had come; a count may have been passed between two looks.
    tenths = [next(memory[n] for n in sorted(memory) if n >= answered * part // 10) for part in range(1, 11)]
    return {
        "clients": clients,
        "requests": requests,
        "batch": served["batch"],
        "queue": served["limits"]["queue"],
        "answered": answered,
        "requests_per_second": round(answered / seconds, 2),
        "seconds": {"p50": percentile(tally.seconds, 50), "p99": percentile(tally.seconds, 99)},
        "seconds_with_waits": {"p50": percentile(tally.waits, 50), "p99": percentile(tally.waits, 99)},
        "refused_429": tally.refused,
        "other_errors": tally.errors,
        "answers_that_differ": tally.differing,
        "memory_mib": {
            "after a tenth": round(tenths[0] / 2**20, 1),
            "at the end": round(memory[max(memory)] / 2**20, 1),
            "after each tenth": [round(size / 2**20, 1) for size in tenths],
            "most": round(max(memory.values()) / 2**20, 1),
        },
        "exit_code": code,
    }


def percentile(values: list[float], share: int) -> float:
    """The least of the values that so many percent do not exceed (nearest rank).

    Args:
        values: at least one.
        share: percent, from 1 to 100.
    """
    return round(sorted(values)[math.ceil(len(values) * share / 100) - 1], 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--size", type=int, default=112, help="the setting size of the requests")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the report")
    given = parser.parse_args()
    ways = {
        "one client": (["--batch-size", "1", "--batch-window", "0"], 1, max(10, given.requests // 10)),
        "many clients": ([], given.clients, given.requests),
        "many clients, batches": (["--batch-size", "8"], given.clients, given.requests),
    }
    report: dict[str, Any] = {
        "model": given.model,
        "picture": [WIDTH, HEIGHT],
        "settings": {"size": given.size},
        "classes": CLASSES,
        "server_versions": {name: version(name) for name in ("fastapi", "starlette", "uvicorn", "h11")},
        "ways": {},
    }
    for way, (options, clients, requests) in ways.items():
        report["ways"][way] = measure(options, given.model, given.size, clients, requests)
        print(way, report["ways"][way], flush=True)
    print(write_report("service_load", report, given.out))


if __name__ == "__main__":
    main()
