"""A machine learning backend for Label Studio: predictions as brush strokes."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request

from cliper.errors import ImageError
from cliper.formats.label_studio import label_studio_prediction
from cliper.web.service.labelling import Labelling, read_labelling
from cliper.web.service.line import Done
from cliper.web.service.parse import decode_base64, parse_json, validated
from cliper.web.service.refusal import Refusal, refusal_of
from cliper.web.service.schema import LabelStudioPredict, Wishes
from cliper.web.service.service import Service, Turn
from cliper.web.service.wish import Wish, make_wish

__all__ = ["model_version", "predict"]

_DATA = re.compile(r"data:image/[a-z0-9.+-]{1,40};base64,", re.IGNORECASE)


@dataclass(frozen=True)
class _Asked:
    labelling: Labelling
    wishes: Wishes
    addresses: list[object]  # of the tasks that are answered
    count: int  # of all tasks


def model_version(service: Service) -> str:
    """What predictions are marked with: model, refiner, and this package's version."""
    refiner = service.served.refiner
    return f"{service.served.name}{f' + {refiner}' if refiner else ''}, cliper {service.served.version}"


async def predict(service: Service, turn: Turn, body: bytes, request: Request) -> dict[str, Any]:
    """A prediction for each task; one whose picture cannot be used is an ``error`` that says why, without a ``result``:
    Label Studio logs it, keeps nothing, and asks again the next time.

    Of more tasks than the limit, or if the time ends before all are done, the first alone is answered: one prediction
    for many tasks makes Label Studio ask for each task by itself.

    Raises:
        Refusal: 400 no JSON; 422 a configuration that cannot be used, or no picture that can; those of the turn.
    """
    asked = await turn.code(_read, service, body)
    results: list[dict[str, Any]] = []
    refused: list[Refusal] = []
    for address in asked.addresses:
        try:
            wish = await turn.code(_wish, service, asked, address)
            done = await turn.segment(wish, request)
            results.append(await turn.code(_result, service, asked, done))
        except Refusal as refusal:
            if refusal.status == 504 and len(results) > len(refused):
                return {"results": results[:1]}
            if refusal.status not in (400, 422):
                raise
            refused.append(refusal)
            results.append({"model_version": model_version(service), "error": refusal.message})
    if len(refused) == asked.count:
        raise refused[0]
    return {"results": results}


def _read(service: Service, body: bytes) -> _Asked:
    limits = service.served.limits
    asked = validated(LabelStudioPredict, parse_json(body))
    labelling = read_labelling(asked.label_config, limits.classes)
    tasks = asked.tasks if len(asked.tasks) <= limits.tasks else asked.tasks[:1]
    # As everywhere, a label "dog: puppy" is recognised by what comes after the colon; strokes carry the whole label.
    wishes = validated(Wishes, {"classes": [text for text, _ in labelling.labels]})
    return _Asked(labelling, wishes, [task.data.get(labelling.value) for task in tasks], len(asked.tasks))


def _wish(service: Service, asked: _Asked, address: object) -> Wish:
    if not isinstance(address, str):
        key = asked.labelling.value[:60]
        raise Refusal(422, f"tasks: expected the address of a picture in data[{key!r}], got none")
    most = service.served.limits.body_bytes
    found = _DATA.match(address)
    if found:
        image = decode_base64(address[found.end() :], "the task's picture")
    elif service.folder is not None:
        image = service.folder.read(address, most)
    else:
        raise refusal_of(
            ImageError(
                "expected a picture as data:image/...;base64,..., got another address; no address is opened here"
            )
        )
    return make_wish(service.served, image, asked.wishes)


def _result(service: Service, asked: _Asked, done: Done) -> dict[str, Any]:
    names = tuple(alias for _, alias in asked.labelling.labels)
    return label_studio_prediction(
        replace(done.result, classes=names),
        model_version=model_version(service),
        from_name=asked.labelling.brush,
        to_name=asked.labelling.image,
    )
