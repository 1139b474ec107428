"""The backend for Label Studio: predictions, its configuration, and the folder of its images."""

from __future__ import annotations

import base64
import itertools
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cliper.errors import ClassListError, ImageError, InputError
from cliper.formats.label_studio import labeling_config
from cliper.segmenter import Segmenter
from cliper.server.label_studio import check_media_folder, read_label_config, read_media

CONFIG = """<View>
  <Header value="Where is what?"/>
  <Image name="photo" value="$picture"/>
  <RectangleLabels name="box" toName="photo"><Label value="car"/></RectangleLabels>
  <BrushLabels name="brush" toName="photo">
    <Label value="cat" background="red"/>
    <Label value="dog" alias="canine"/>
  </BrushLabels>
</View>"""


def data_address(image: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(image).decode()


def predict(service: Any, *addresses: Any, config: str = CONFIG, **more: Any) -> Any:
    tasks = [{"id": number, "data": {"picture": address}} for number, address in enumerate(addresses)]
    return service.client.post("/predict", json={"tasks": tasks, "label_config": config, "project": "1.1", **more})


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


def test_brush_masks_are_those_of_the_segmenter(usual: Any, image_file: bytes) -> None:
    answered = predict(usual, data_address(image_file), data_address(image_file))
    assert answered.status_code == 200
    first, second = answered.json()["results"]
    assert first == second
    assert first["model_version"] == usual.client.post("/setup", json={"project": "1.1"}).json()["model_version"]
    masks = {mask["label"]: mask["rle"] for mask in usual.segment(image_file, ["cat", "dog"]).json()["masks"]}
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
    assert usual.service.model.name in answered.json()["model_version"]


def test_unusable_image_does_not_fail_other_tasks(usual: Any, image_file: bytes) -> None:
    answered = predict(usual, data_address(b"no picture"), data_address(image_file), "data:image/png;base64,?")
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


def test_first_of_too_many_tasks_is_answered(start: Any, image_file: bytes) -> None:
    """One answer for many tasks is how Label Studio is told to ask for each by itself."""
    service = start(tasks=2)
    here = data_address(image_file)
    assert len(predict(service, here, here).json()["results"]) == 2
    (only,) = predict(service, here, "http://127.0.0.1:1/a.png", here).json()["results"]
    assert only == predict(service, here).json()["results"][0]


def test_error_of_the_first_of_too_many_tasks_is_200(start: Any, image_file: bytes) -> None:
    service = start(tasks=2)
    here = data_address(image_file)
    answered = predict(service, "http://127.0.0.1:1/a.png", here, here)
    assert answered.status_code == 200
    (only,) = answered.json()["results"]
    assert set(only) == {"model_version", "error"}


def test_task_without_an_image_does_not_fail_other_tasks(usual: Any, image_file: bytes) -> None:
    here = data_address(image_file)
    body = {"tasks": [{"data": {}}, {"data": {"picture": here}}, {"data": {"picture": 3}}], "label_config": CONFIG}
    bad, good, other = usual.client.post("/predict", json=body).json()["results"]
    assert good["result"]
    for one in (bad, other):
        assert "data['picture']" in one["error"]


def test_first_of_tasks_that_time_out_is_answered(
    start: Any, image_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls, end = Segmenter.__call__, itertools.count(), threading.Event()

    def only_the_first(self: Segmenter, image: Any, *rest: Any) -> Any:
        if next(calls) == 1:
            end.wait(60)
        return real(self, image, *rest)

    service = start(seconds=3.0)
    here = data_address(image_file)
    expected = predict(service, here).json()["results"]
    monkeypatch.setattr(Segmenter, "__call__", only_the_first)
    answered = predict(service, here, here, here)
    end.set()
    assert answered.status_code == 200
    assert answered.json()["results"] == expected
    assert expected[0]["result"]


def test_invalid_label_studio_requests(start: Any, image_file: bytes) -> None:
    service = start(tasks=2)
    here = data_address(image_file)
    assert predict(service).status_code == 422
    assert predict(service, 3).status_code == 422
    assert predict(service, 3, None).status_code == 422
    assert predict(service, here, config="<View/>").status_code == 422
    assert predict(service, here, config=CONFIG.replace('"cat"', '"dog"')).status_code == 422
    for body in ({}, {"tasks": [{"data": 3}], "label_config": CONFIG}, {"tasks": 3, "label_config": CONFIG}):
        assert service.client.post("/predict", json=body).status_code == 422


def test_label_config_of_the_format_is_read() -> None:
    found = read_label_config(labeling_config(["dog", "red bus", "a<b"]))
    assert (found.brush, found.image, found.value) == ("tag", "image", "image")
    assert found.labels == tuple((name, name) for name in ("dog", "red bus", "a<b"))


BOMB = '<!DOCTYPE v [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9)
)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (BOMB + "]><View>&j;</View>", "document type"),
        ('<!DOCTYPE v SYSTEM "http://127.0.0.1:1/x.dtd"><View/>', "document type"),
        ('<!DOCTYPE v [<!ENTITY x SYSTEM "file:///etc/passwd">]><View>&x;</View>', "document type"),
        ("<View>&x;</View>", "could not read"),
        ("", "could not read"),
        ("\ud800", "could not read"),
        ("<View>", "could not read"),
        ("<View></View>" * 2, "could not read"),
        ("<View>" * 100_000, "could not read"),
        ('<View><Image name="i" value="$p"/></View>', "got none"),
        ('<View><Image name="i" value="$p"/><BrushLabels name="b" toName="i"/></View>', "expected <Label>"),
        (CONFIG.replace('toName="photo"', 'toName="text"'), "got none"),
        (CONFIG.replace("$picture", "picture"), "got none"),
        (CONFIG.replace('value="dog"', 'value=" "'), "with a value"),
        (CONFIG.replace('value="dog"', 'value="a;b"'), "without ';'"),
    ],
    ids=lambda text: ascii(text)[:24],
)
def test_invalid_label_configs(config: str, said: str) -> None:
    with pytest.raises(ClassListError, match=said):
        read_label_config(config)


@pytest.fixture
def uploads(tmp_path: Path, image_file: bytes) -> Path:
    folder = tmp_path / "uploads"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "a b.png").write_bytes(image_file)
    (tmp_path / "outside.png").write_bytes(image_file)
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "up").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.png")
    return folder


def test_images_of_the_media_folder_are_read(start: Any, uploads: Path, image_file: bytes) -> None:
    service = start(media=uploads)
    answered = predict(
        service, "/data/upload/1/a%20b.png", "/data/local-files/?d=1/a%20b.png", data_address(image_file)
    )
    assert answered.status_code == 200
    first, second, third = answered.json()["results"]
    assert first == second == third
    assert first["result"]


@pytest.mark.parametrize(
    "path",
    [
        "../outside.png",
        "1/../../outside.png",
        "%2e%2e/outside.png",
        "..%2foutside.png",
        "link.png",
        "up/outside.png",
        "/etc/passwd",
        "1",
        "",
        "pipe.png",
        "no.png",
        "%00",
        "a" * 5000,
        "1/a%20b.png/x",
    ],
)
def test_files_outside_the_media_folder_are_not_read(uploads: Path, path: str) -> None:
    for address in (f"/data/upload/{path}", f"/data/local-files/?d={path}"):
        with pytest.raises(ImageError, match=r"found none there|no other is opened"):
            read_media(uploads, address, 10**6)


@pytest.mark.parametrize(
    "address", ["//host/data/upload/1/a.png", "http://h/data/upload/1/a.png", "/data/upload/1/a.png?x=1"]
)
def test_other_addresses_are_refused(uploads: Path, address: str) -> None:
    with pytest.raises(ImageError, match="no other is opened"):
        read_media(uploads, address, 10**6)


def test_large_file_and_missing_media_folder(uploads: Path) -> None:
    with pytest.raises(ImageError, match=r"at most 0\.0001 MB"):
        read_media(uploads, "/data/upload/1/a%20b.png", 100)
    check_media_folder(uploads / "no")  # Label Studio creates it with the first upload
    for missing in (uploads / "no" / "no", uploads / "pipe.png"):
        with pytest.raises(InputError, match="expected a folder"):
            check_media_folder(missing)
