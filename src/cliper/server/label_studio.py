"""Machine learning backend for Label Studio: predictions as brush masks. Configuration and addresses are untrusted."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cliper.errors import ImageError
from cliper.formats.label_studio import label_studio_prediction, read_label_config
from cliper.server.schemas import LabelStudioPredict, SegmentRequest, decode_base64
from cliper.server.service import Service

__all__ = ["predict", "read_media"]

_UPLOADS, _LOCAL_FILES = "/data/upload/", "/data/local-files/"
_SHARE = 0.9  # of the time limit that is used for several tasks; the rest is for sending the first prediction


def read_media(folder: Path, address: str, max_bytes: int) -> bytes:
    """The bytes of an image below a folder, by the address that Label Studio gives it; nothing is downloaded.

    ``/data/upload/1/a.jpg`` is FOLDER/1/a.jpg, ``/data/local-files/?d=some/a.jpg`` is FOLDER/some/a.jpg.

    Raises:
        ImageError: another kind of address, a path that leads out of the folder (also by symbolic links), no file
            there, or a file that is too large. The message does not tell files outside from missing ones.
    """
    try:
        split = urlsplit(address)
        if split.path.startswith(_UPLOADS) and not (split.scheme or split.netloc or split.query):
            relative = unquote(split.path.removeprefix(_UPLOADS), errors="strict")
        elif address.startswith(f"{_LOCAL_FILES}?"):
            (relative,) = parse_qs(split.query, strict_parsing=True, errors="strict", max_num_fields=1)["d"]
        else:
            raise ValueError
    except (ValueError, KeyError):
        expected = f"a data: address, {_UPLOADS}... or {_LOCAL_FILES}?d=..."
        raise ImageError(f"expected {expected}, got another; no other is opened") from None
    try:
        root = Path(os.path.realpath(folder))
        path = Path(os.path.realpath(root / relative))
        if root not in path.parents or not path.is_file():  # opening a FIFO could block
            raise FileNotFoundError
        with path.open("rb") as stream:
            data = stream.read(max_bytes + 1)
    except (OSError, ValueError):
        raise ImageError("expected an image in the folder of Label Studio's images, found none there") from None
    if len(data) > max_bytes:
        raise ImageError(f"expected an image of at most {max_bytes / 1e6:.4g} MB, got a larger one")
    return data


async def predict(service: Service, request: LabelStudioPredict) -> dict[str, Any]:
    """A prediction for each task. A task whose image cannot be used gets an ``error``, no ``result``: Label Studio
    logs it, stores nothing, and asks again the next time.

    Of more tasks than the limit, or near the deadline, only the first is answered: a single prediction for many tasks
    makes Label Studio send a request for each task.

    Raises:
        InputError: a configuration that cannot be used.
    """
    model, config = service.model, read_label_config(request.label_config)
    texts, names = zip(*config.labels, strict=True)

    async def predict_one(data: Any) -> dict[str, Any]:
        try:
            image = await service.run_in_thread(_read_image, service, data, config.value)
            # A label "dog: puppy" is recognised by the text after the colon; results carry the whole label.
            result, _ = await service.segment(SegmentRequest.model_validate({"image": image, "classes": list(texts)}))
        except ImageError as error:
            return {"model_version": model.model_version, "error": str(error)}
        options = {"model_version": model.model_version, "from_name": config.brush, "to_name": config.image}
        return await service.run_in_thread(lambda: label_studio_prediction(replace(result, classes=names), **options))

    results: list[dict[str, Any]] = []
    tasks = request.tasks if len(request.tasks) <= model.limits.tasks else request.tasks[:1]
    try:
        async with asyncio.timeout(_SHARE * model.limits.seconds):
            for task in tasks:
                results.append(await predict_one(task.get("data")))
    except TimeoutError:
        if not results:
            raise
        results = results[:1]
    return {"results": results}


def _read_image(service: Service, data: Any, key: str) -> bytes:
    address = data.get(key) if isinstance(data, dict) else None
    if not isinstance(address, str):
        raise ImageError(f"tasks: expected the address of an image in data[{key[:60]!r}], got none")
    if address.startswith("data:image/"):
        try:
            return bytes(decode_base64(address))
        except ValueError as error:
            raise ImageError(f"image: {error}") from None
    if service.media is None:
        raise ImageError("expected an image as data:image/...;base64,..., got another; no address is opened here")
    return read_media(service.media, address, int(service.model.limits.megabytes * 1e6))
