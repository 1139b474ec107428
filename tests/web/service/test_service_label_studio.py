"""The backend for Label Studio."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_studio_asks import CONFIG, data_address, predict

from cliper.segmenter import Segmenter


def decoded(stroke: dict[str, Any]) -> np.ndarray[Any, Any]:
    """A brush's mask, by a reader that follows Label Studio's own description of the bits."""
    bits = "".join(f"{byte:08b}" for byte in stroke["value"]["rle"])
    place = 0

    def take(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    count, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < count:
        repeated = take(1)
        length = take(sizes[take(2)]) + 1
        values += [take(word)] * length if repeated else [take(word) for _ in range(length)]
    shape = (stroke["original_height"], stroke["original_width"], 4)
    return np.array(values).reshape(shape)[..., 3] > 0


def test_strokes_are_the_masks_that_the_service_finds(usual: Any, picture_file: bytes) -> None:
    answered = predict(usual, data_address(picture_file), data_address(picture_file))
    assert answered.status_code == 200
    first, second = answered.json()["results"]
    assert first == second
    assert first["model_version"] == usual.client.post("/setup", json={"project": "1.1"}).json()["model_version"]
    masks = {mask["label"]: mask["rle"] for mask in usual.segment(picture_file, ["cat", "dog"]).json()["masks"]}
    assert masks
    from pycocotools import mask as coco

    for stroke in first["result"]:
        assert (stroke["from_name"], stroke["to_name"], stroke["type"]) == ("brush", "photo", "brushlabels")
        (name,) = stroke["value"]["brushlabels"]
        wanted = coco.decode(masks[["cat", "canine"].index(name) + 1]).astype(bool)
        assert np.array_equal(decoded(stroke), wanted)
    assert len(first["result"]) == len(masks)


def test_health_and_setup(usual: Any) -> None:
    assert usual.client.get("/health").json() == {"status": "UP", "model_class": "CLIPer"}
    body = {
        "project": "1.1",
        "schema": CONFIG,
        "hostname": "http://127.0.0.1:1",
        "access_token": "x",
        "extra_params": None,
    }
    answered = usual.client.post("/setup", json=body)
    assert answered.status_code == 200
    assert usual.service.served.name in answered.json()["model_version"]


def test_a_picture_that_cannot_be_used_does_not_spoil_the_others(usual: Any, picture_file: bytes) -> None:
    answered = predict(usual, data_address(b"no picture"), data_address(picture_file), "data:image/png;base64,?")
    assert answered.status_code == 200
    bad, good, broken = answered.json()["results"]
    for failed in (bad, broken):
        assert "result" not in failed  # an empty one would be kept, and never asked for again
    assert "expected an image" in bad["error"]
    assert "base64" in broken["error"]
    assert "error" not in good
    alone = predict(usual, data_address(b"no picture"))
    assert alone.status_code == 422


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:1/a.png",
        "https://example.org/a.png",
        "file:///etc/passwd",
        "/etc/passwd",
        "s3://bucket/a.png",
        "/data/upload/1/a.png",
        "/data/local-files/?d=a.png",
        "data:text/html;base64,aGk=",
        "",
        "\x00",
        "ä",
    ],
)
def test_no_address_is_opened(usual: Any, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: object) -> None:
        raise AssertionError("a file was opened")

    monkeypatch.setattr(Path, "open", opened)
    answered = predict(usual, address)
    assert answered.status_code == 422
    assert "no address is opened" in answered.json()["error"]


def test_of_too_many_tasks_the_first_is_answered(start: Any, picture_file: bytes) -> None:
    """One answer for many tasks is how Label Studio is told to ask for each by itself."""
    service = start(tasks=2)
    here = data_address(picture_file)
    assert len(predict(service, here, here).json()["results"]) == 2
    (only,) = predict(service, here, "http://127.0.0.1:1/a.png", here).json()["results"]
    assert only == predict(service, here).json()["results"][0]


def test_a_bad_first_of_too_many_tasks_does_not_end_the_others(start: Any, picture_file: bytes) -> None:
    service = start(tasks=2)
    here = data_address(picture_file)
    answered = predict(service, "http://127.0.0.1:1/a.png", here, here)
    assert answered.status_code == 200
    (only,) = answered.json()["results"]
    assert set(only) == {"model_version", "error"}


def test_a_task_without_a_picture_does_not_spoil_the_others(usual: Any, picture_file: bytes) -> None:
    here = data_address(picture_file)
    body = {"tasks": [{"data": {}}, {"data": {"picture": here}}, {"data": {"picture": 3}}], "label_config": CONFIG}
    bad, good, other = usual.client.post("/predict", json=body).json()["results"]
    assert good["result"]
    for one in (bad, other):
        assert "data['picture']" in one["error"]


def test_of_tasks_that_take_too_long_the_first_is_answered(
    start: Any, picture_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls, end = Segmenter.__call__, itertools.count(), threading.Event()

    def only_the_first(self: Segmenter, image: Any, *rest: Any) -> Any:
        if next(calls) == 1:
            end.wait(60)
        return real(self, image, *rest)

    service = start(seconds=3.0)
    here = data_address(picture_file)
    expected = predict(service, here).json()["results"]
    monkeypatch.setattr(Segmenter, "__call__", only_the_first)
    answered = predict(service, here, here, here)
    end.set()
    assert answered.status_code == 200
    assert answered.json()["results"] == expected
    assert expected[0]["result"]


def test_requests_that_are_wrong(start: Any, picture_file: bytes) -> None:
    service = start(tasks=2)
    here = data_address(picture_file)
    assert predict(service).status_code == 422
    assert predict(service, 3).status_code == 422
    assert predict(service, 3, None).status_code == 422
    assert predict(service, here, config="<View/>").status_code == 422
    assert predict(service, here, config=CONFIG.replace('"cat"', '"dog"')).status_code == 422
    for body in ({}, {"tasks": [{"data": 3}], "label_config": CONFIG}, {"tasks": 3, "label_config": CONFIG}):
        assert service.client.post("/predict", json=body).status_code == 422
    assert service.client.post("/setup", json={"schema": 3}).status_code == 422
