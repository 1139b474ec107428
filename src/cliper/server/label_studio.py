"""Machine learning backend for Label Studio: predictions as brush masks. Configuration and addresses are untrusted."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

from starlette.requests import Request

from cliper.errors import ClassListError, ImageError, InputError
from cliper.formats.label_studio import label_studio_prediction
from cliper.server.admission import RequestContext, Service
from cliper.server.errors import HTTPError
from cliper.server.parsing import decode_base64, validate
from cliper.server.request import build_request
from cliper.server.schemas import LabelStudioPredict, SegmentParams

__all__ = ["LabelConfig", "MediaFolder", "decode_data_uri", "predict", "read_label_config"]

_DATA = re.compile(r"data:image/[a-z0-9.+-]{1,40};base64,", re.IGNORECASE)
_UPLOADS, _LOCAL_FILES = "/data/upload/", "/data/local-files/"


class MediaFolder:
    """Images below one folder, by the addresses that Label Studio gives them; nothing is downloaded.

    ``/data/upload/1/a.jpg`` is FOLDER/1/a.jpg, ``/data/local-files/?d=some/a.jpg`` is FOLDER/some/a.jpg.

    Args:
        root: the folder; Label Studio creates ``media/upload`` with the first upload, so only its parent must exist.

    Raises:
        InputError: neither the folder nor its parent exists.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir() and (root.exists() or not root.absolute().parent.is_dir()):
            raise InputError(f"expected a folder of Label Studio's images, got {str(root)!r}; check the path")
        self._root = root.absolute()

    def read(self, address: str, max_bytes: int) -> bytes:
        """The bytes of an image.

        Raises:
            ImageError: another kind of address, a path that leads out of the folder (also by symbolic links), no file
                there, or a file that is too large. The message does not tell files outside from missing ones.
        """
        try:
            split = urlsplit(address)
            if split.scheme or split.netloc:
                raise ValueError
            if split.path.startswith(_UPLOADS) and not split.query:
                relative = unquote(split.path.removeprefix(_UPLOADS), errors="strict")
            elif split.path == _LOCAL_FILES:
                (relative,) = parse_qs(split.query, strict_parsing=True, errors="strict", max_num_fields=1)["d"]
            else:
                raise ValueError
        except (ValueError, KeyError):
            message = (
                f"expected a data: address, {_UPLOADS}... or {_LOCAL_FILES}?d=..., got another; no other is opened"
            )
            raise ImageError(message) from None
        try:
            root = Path(os.path.realpath(self._root))
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


@dataclass(frozen=True)
class LabelConfig:
    """The first ``BrushLabels`` of a labeling configuration that belongs to an ``Image``.

    Args:
        brush: name of the tag ``BrushLabels``.
        image: name of the tag ``Image``.
        value: key of the image in a task's data.
        labels: for each class its text, and its name in results.
    """

    brush: str
    image: str
    value: str
    labels: tuple[tuple[str, str], ...]


def read_label_config(text: str) -> LabelConfig:
    """Read a labeling configuration. Document types, and with them entities, are refused.

    Raises:
        ClassListError: not XML, no ``BrushLabels`` for an ``Image``, or no labels.

    Example:
        >>> brush = '<BrushLabels name="b" toName="i"><Label value="dog"/></BrushLabels>'
        >>> read_label_config(f'<View><Image name="i" value="$p"/>{brush}</View>').labels
        (('dog', 'dog'),)
    """
    try:
        if "<!DOCTYPE" in text:
            raise ValueError("it has a document type")
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise ClassListError(f"label_config: expected Label Studio's XML, could not read it ({error})") from None
    images = {image.get("name"): image.get("value", "") for image in root.iter("Image")}
    for brush in root.iter("BrushLabels"):
        value = images.get(brush.get("toName"), "")
        if not value.startswith("$") or len(value) < 2:
            continue
        labels = [(label.get("value", "").strip(), label) for label in brush.iter("Label")]
        if not labels or any(not name or ";" in name for name, _ in labels):
            raise ClassListError(
                "label_config: expected <Label> tags with a value and without ';'; add or correct them"
            )
        pairs = tuple((name, label.get("alias", name)) for name, label in labels)
        return LabelConfig(brush.get("name", ""), brush.get("toName", ""), value[1:], pairs)
    raise ClassListError(
        'label_config: expected <Image name="image" value="$image"/> and <BrushLabels toName="image" ...>, got none'
    )


def decode_data_uri(address: str) -> bytes | None:
    """The bytes of ``data:image/...;base64,...``; None for another address.

    Raises:
        HTTPError: 400, not base64.
    """
    found = _DATA.match(address)
    return None if found is None else decode_base64(address[found.end() :], "image")


async def predict(
    service: Service, context: RequestContext, values: LabelStudioPredict, request: Request
) -> dict[str, Any]:
    """A prediction for each task. A task whose image cannot be used gets an ``error``, no ``result``: Label Studio
    logs it, stores nothing, and asks again the next time.

    Of more tasks than the limit, or at the deadline, only the first is answered: a single prediction for many tasks
    makes Label Studio send a request for each task.

    Raises:
        HTTPError: 422 a configuration that cannot be used, or no image that can; those of the context.
    """
    model = service.model

    def read() -> tuple[LabelConfig, SegmentParams]:
        config = read_label_config(values.label_config)
        # A label "dog: puppy" is recognised by the text after the colon; results carry the whole label.
        return config, validate(SegmentParams, {"classes": [text for text, _ in config.labels]})

    async def predict_one(address: object) -> dict[str, Any]:
        image = await context.run_in_thread(_read_image, service, address, config.value)
        built = await context.run_in_thread(build_request, model, image, params)
        result = (await context.segment(built, request)).result
        named = replace(result, classes=tuple(alias for _, alias in config.labels))
        return await context.run_in_thread(
            lambda: label_studio_prediction(
                named, model_version=model.model_version, from_name=config.brush, to_name=config.image
            )
        )

    config, params = await context.run_in_thread(read)
    tasks = values.tasks if len(values.tasks) <= model.limits.tasks else values.tasks[:1]
    results: list[dict[str, Any]] = []
    errors: list[HTTPError] = []
    for task in tasks:
        try:
            results.append(await predict_one(task.data.get(config.value)))
        except HTTPError as error:
            if error.status == 504 and len(results) > len(errors):
                return {"results": results[:1]}
            if error.status not in (400, 422):
                raise
            errors.append(error)
            results.append({"model_version": model.model_version, "error": error.message})
    if len(errors) == len(values.tasks):
        raise errors[0]
    return {"results": results}


def _read_image(service: Service, address: object, key: str) -> bytes:
    if not isinstance(address, str):
        raise ImageError(f"tasks: expected the address of an image in data[{key[:60]!r}], got none")
    image = decode_data_uri(address)
    if image is not None:
        return image
    if service.media is None:
        raise ImageError("expected an image as data:image/...;base64,..., got another; no address is opened here")
    return service.media.read(address, service.model.limits.body_bytes)
