"""A server in this process and a client of it."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from cliper.segmenter import Segmenter
from cliper.server.admission import Service
from cliper.server.app import create_app
from cliper.server.label_studio import MediaFolder
from cliper.server.limits import Limits
from cliper.server.models import ServedModel


@dataclass(frozen=True)
class Running:
    """A service and a client of it."""

    service: Service
    client: TestClient

    def segment(self, image: bytes, classes: object = ("cat", "dog"), **values: Any) -> Any:
        """What POST /v1/segment answers to JSON."""
        body = {"image": base64.b64encode(image).decode(), "classes": classes, **values}
        return self.client.post("/v1/segment", json=body)


@contextmanager
def running(segmenter: Segmenter, **options: Any) -> Iterator[Running]:
    """A service with limits and options of its own."""
    limits = Limits(**{name: options.pop(name) for name in list(options) if name in Limits.__dataclass_fields__})
    media: Path | None = options.pop("media", None)
    model = ServedModel(segmenter, limits, batch=options.pop("batch", None), decoders=options.pop("decoders", None))
    folder = None if media is None else MediaFolder(media)
    with ExitStack() as ends:
        service = ends.enter_context(Service(model, media=folder, **options))
        # A defect is an exception here, not an answer: no test can pass over it.
        yield Running(service, ends.enter_context(TestClient(create_app(service))))


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that other threads do."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)


class Waiting:
    """Requests that other threads make; closed before the service is, so that they get their answers."""

    def __init__(self, service: Any) -> None:
        self.service = service
        self.pool = ThreadPoolExecutor(16)

    def ask(self, image: bytes, *rest: Any, **values: Any) -> Future[Any]:
        before = self.service.service.in_flight
        asked = self.pool.submit(self.service.segment, image, *rest, **values)
        until(lambda: self.service.service.in_flight > before or asked.done())
        return asked


class Connection:
    """A client at the lowest level: it sends what and when the test says."""

    def __init__(self, app: Any, path: str, kind: str) -> None:
        self.sent: list[dict[str, Any]] = []
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        headers = [(b"content-type", kind.encode())]
        self._app = app
        self._scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
        self._scope |= {"http_version": "1.1", "scheme": "http", "root_path": "", "raw_path": path.encode()}

    async def run(self, receive: Callable[[], Awaitable[dict[str, Any]]] | None = None) -> None:
        """Until it has its answer. What it says is ``incoming``, or what ``receive`` gives."""

        async def send(message: Any) -> None:
            self.sent.append(message)

        await self._app(self._scope, receive or self.incoming.get, send)

    def says(self, body: bytes, more: bool) -> None:
        self.incoming.put_nowait({"type": "http.request", "body": body, "more_body": more})

    @property
    def answer(self) -> tuple[int, dict[bytes, bytes]]:
        return self.sent[0]["status"], dict(self.sent[0]["headers"])


def refused(answered: Any, status: int, *words: str) -> None:
    """An answer is a refusal of that status, in one line, with these words in it."""
    assert answered.status_code == status, answered.text
    assert answered.headers["content-type"] == "application/json"
    told = answered.json()
    assert set(told) == {"error"}
    assert "\n" not in told["error"]
    for word in words:
        assert word in told["error"]
