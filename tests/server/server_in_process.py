"""A server in this process and a client of it."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from PIL import Image
from prometheus_client import generate_latest
from server_process import wait_for
from starlette.testclient import TestClient

from cliper.segmenter import Segmenter
from cliper.server.app import create_app
from cliper.server.models import Limits, ServedModel
from cliper.server.service import Service


@dataclass(frozen=True)
class Running:
    """A service and a client of it."""

    service: Service
    client: TestClient

    def segment(self, image: bytes, classes: object = ("cat", "dog"), **values: Any) -> Any:
        """Response of POST /v1/segment to JSON."""
        body = {"image": base64.b64encode(image).decode(), "classes": classes, **values}
        return self.client.post("/v1/segment", json=body)

    def segment_later(self, image: bytes, **values: Any) -> Future[Any]:
        """The same in another thread; the request has been admitted."""
        before, pool = self.service.in_flight, ThreadPoolExecutor(1)
        found = pool.submit(self.segment, image, **values)
        wait_for(lambda: self.service.in_flight > before or found.done())
        return found

    @property
    def metrics(self) -> str:
        return generate_latest(self.service.metrics.registry).decode()


@contextmanager
def running(segmenter: Segmenter, **options: Any) -> Iterator[Running]:
    """A service with limits and options of its own."""
    limits = Limits(**{name: options.pop(name) for name in list(options) if name in Limits.__dataclass_fields__})
    model = ServedModel(segmenter, limits, batch=options.pop("batch", None), decoders=options.pop("decoders", None))
    with ExitStack() as ends:
        service = ends.enter_context(Service(model, **options))
        # A defect is an exception here, not a response: no test can pass over it.
        yield Running(service, ends.enter_context(TestClient(create_app(service))))


def refused(response: Any, status: int, *words: str) -> None:
    """Check a refusal: its status, and one line with these words."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    told = response.json()
    assert set(told) == {"error"}
    assert "\n" not in told["error"]
    for word in words:
        assert word in told["error"]


def png(image: Image.Image) -> bytes:
    """An image as a PNG file."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()
