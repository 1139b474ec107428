"""The backend for Label Studio: predictions, its configuration, and the folder of its images."""

from __future__ import annotations

import base64
import io
import itertools
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cliper.errors import ImageError
from cliper.formats.label_studio import label_studio_prediction
from cliper.segmenter import Segmenter
from cliper.server.label_studio import read_media

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


def test_prediction_is_that_of_the_segmenter(start: Any, tiny: Segmenter, image_file: bytes) -> None:
    service = start(tiny)
    setup = {"project": "1.1", "schema": CONFIG, "hostname": "http://127.0.0.1:1", "access_token": "x"}
    version = service.client.post("/setup", json=setup).json()["model_version"]
    assert service.service.model.name in version
    assert service.client.get("/health").json() == {"status": "UP", "model_class": "CLIPer"}
    response = predict(service, data_address(image_file), data_address(image_file))
    assert response.status_code == 200
    first, second = response.json()["results"]
    result = replace(tiny(Image.open(io.BytesIO(image_file)), ["cat", "dog"]), classes=("cat", "canine"))
    expected = label_studio_prediction(result, model_version=version, from_name="brush", to_name="photo")
    assert first == second
    assert first["result"]
    assert [mask["value"] for mask in first["result"]] == [mask["value"] for mask in expected["result"]]
    assert {mask["from_name"] for mask in first["result"]} == {"brush"}
    assert first["model_version"] == version


def test_unusable_image_does_not_fail_other_tasks(usual: Any, image_file: bytes) -> None:
    response = predict(
        usual, data_address(b"no image"), data_address(image_file), "data:image/png;base64,?", None, "data:text/html,a"
    )
    assert response.status_code == 200
    first, good, *others = response.json()["results"]
    assert good["result"]
    expected = ("expected an image", "base64", "data['picture']", "no address is opened")
    for failed, words in zip((first, *others), expected, strict=True):
        assert "result" not in failed  # an empty one would be stored, and never asked for again
        assert words in failed["error"]


ADDRESSES = """http://127.0.0.1:1/a.png https://example.org/a.png file:///etc/passwd /etc/passwd s3://bucket/a.png ä
/data/upload/1/a.png /data/local-files/?d=a.png data:text/html;base64,aGk="""


def test_no_address_is_opened(usual: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("a file was opened"))
    results = predict(usual, *ADDRESSES.split(), "", "\x00").json()["results"]
    assert len(results) == len(ADDRESSES.split()) + 2
    assert all("no address is opened" in one["error"] for one in results)


def test_first_of_too_many_tasks_is_answered(start: Any, image_file: bytes) -> None:
    """One prediction for many tasks makes Label Studio ask for each by itself; a 4xx would end that."""
    service = start(tasks=2)
    here, address = data_address(image_file), "http://127.0.0.1:1/a.png"
    assert len(predict(service, here, here).json()["results"]) == 2
    (only,) = predict(service, here, address, here).json()["results"]
    assert only == predict(service, here).json()["results"][0]
    response = predict(service, address, here, here)
    assert response.status_code == 200
    (only,) = response.json()["results"]
    assert set(only) == {"model_version", "error"}


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
    response = predict(service, here, here, here)
    end.set()
    assert response.status_code == 200
    assert response.json()["results"] == expected
    assert expected[0]["result"]


def test_invalid_label_studio_requests(usual: Any, image_file: bytes) -> None:
    here = data_address(image_file)
    assert predict(usual).status_code == 422
    for config in ("<View/>", CONFIG.replace('"cat"', '"dog"')):
        assert predict(usual, here, config=config).status_code == 422
    for body in ({}, {"tasks": [3], "label_config": CONFIG}, {"tasks": 3, "label_config": CONFIG}):
        assert usual.client.post("/predict", json=body).status_code == 422


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
    response = predict(
        service, "/data/upload/1/a%20b.png", "/data/local-files/?d=1/a%20b.png", data_address(image_file)
    )
    assert response.status_code == 200
    first, second, third = response.json()["results"]
    assert first == second == third
    assert first["result"]


OUTSIDE = """../outside.png 1/../../outside.png %2e%2e/outside.png ..%2foutside.png link.png up/outside.png /etc/passwd
1 pipe.png no.png %00 1/a%20b.png/x"""


def test_files_outside_the_media_folder_are_not_read(uploads: Path) -> None:
    paths = [*OUTSIDE.split(), "", "a" * 5000]
    inside = [prefix + path for path in paths for prefix in ("/data/upload/", "/data/local-files/?d=")]
    others = ["//host/data/upload/1/a.png", "http://h/data/upload/1/a.png", "/data/upload/1/a.png?x=1"]
    for address in inside + others:
        with pytest.raises(ImageError, match=r"found none there|no other is opened"):
            read_media(uploads, address, 10**6)


def test_large_file_and_missing_media_folder(uploads: Path) -> None:
    with pytest.raises(ImageError, match=r"at most 0\.0001 MB"):
        read_media(uploads, "/data/upload/1/a%20b.png", 100)
    with pytest.raises(ImageError, match="found none there"):  # Label Studio makes the folder with the first upload
        read_media(uploads / "no", "/data/upload/1/a%20b.png", 100)
