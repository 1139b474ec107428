"""A service in this process and a client of it, for the tests of the service."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from cliper.segmenter import Segmenter
from cliper.web.service.app import create_app
from cliper.web.service.folder import PictureFolder
from cliper.web.service.limits import Limits
from cliper.web.service.served import Served
from cliper.web.service.service import Service


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
    folder: Path | None = options.pop("folder", None)
    served = Served(segmenter, limits, batch=options.pop("batch", None))
    opened = None if folder is None else PictureFolder(folder)
    with ExitStack() as ends:
        service = ends.enter_context(Service(served, folder=opened, **options))
        # A defect is an exception here, not an answer: no test can pass over it.
        yield Running(service, ends.enter_context(TestClient(create_app(service))))
