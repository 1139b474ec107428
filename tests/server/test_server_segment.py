"""Responses to valid requests."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from server_in_process import refused

import cliper
from cliper.prompts import parse_classes
from cliper.segmenter import Segmenter
from cliper.vocabulary import TaughtWords


def labels_of(answer: dict[str, Any]) -> np.ndarray[Any, Any]:
    """The label map of an answer with run lengths, by COCO's own reader."""
    labels = np.zeros((answer["height"], answer["width"]), int)
    for mask in answer["masks"]:
        labels[coco.decode(mask["rle"]).astype(bool)] = mask["label"]
    return labels


def test_masks_are_those_of_the_segmenter(
    start: Any, own_tiny: Segmenter, image_file: bytes, make_image: Callable[..., Image.Image]
) -> None:
    words = (["cat", "dog: puppy, hound"], ["sky", "wall"])
    response = start(own_tiny).segment(image_file, words[0], background=words[1])
    assert response.status_code == 200
    answer = response.json()
    expected = own_tiny(make_image(), *words)
    assert (answer["width"], answer["height"]) == (96, 64)
    assert np.array_equal(labels_of(answer), expected.labels)
    assert len(np.unique(expected.labels)) > 1  # else there would be nothing to compare
    assert [one["name"] for one in answer["classes"]] == ["cat", "dog"]
    assert [one["area"] for one in answer["classes"]] == pytest.approx(list(expected.areas.values()))
    assert [one["confidence"] for one in answer["classes"]] == pytest.approx(expected.confidence.tolist(), rel=1e-5)
    # Not the folder that it lies in, which is no business of callers.
    assert (answer["model"], answer["refiner"]) == ("tiny", None)


def test_png_and_polygons_are_of_the_same_labels(usual: Any, image_file: bytes) -> None:
    labels = labels_of(usual.segment(image_file).json())
    drawn = Image.open(io.BytesIO(base64.b64decode(usual.segment(image_file, output="png").json()["png"])))
    assert drawn.mode == "P"
    assert json.loads(drawn.info["classes"]) == ["cat", "dog"]
    assert np.array_equal(np.asarray(drawn), labels)
    response = usual.segment(image_file, output="polygons", tolerance=0).json()
    assert not {"masks", "png", "maps"} & set(response)  # only what was requested
    polygons = response["polygons"]
    for label in np.unique(labels[labels > 0]):
        found = [one for one in polygons if one["label"] == label]
        assert sum(one["area"] for one in found) == np.count_nonzero(labels == label)
    rough = usual.segment(image_file, output="polygons", tolerance=4).json()["polygons"]
    assert sum(len(one["points"]) for one in rough) < sum(len(one["points"]) for one in polygons)


def test_form_and_json_get_the_same_response(usual: Any, image_file: bytes) -> None:
    settings = {"size": 48, "background_threshold": 0.2}
    wanted = usual.segment(image_file, ["cat", "dog"], background=["sky"], settings=settings).json()
    fields = {"classes": ["cat", "dog"], "background": "sky", "settings": json.dumps(settings)}
    got = usual.client.post("/v1/segment", data=fields, files={"image": ("../../etc/passwd", image_file)}).json()
    del wanted["seconds"], got["seconds"]
    assert got == wanted
    lists = {**fields, "classes": "cat; dog"}
    assert usual.client.post("/v1/segment", data=lists, files={"image": image_file}).json()["masks"] == got["masks"]


def test_commas_separate_classes_in_a_form(usual: Any, image_file: bytes) -> None:
    data = {"classes": ["cat, dog; owl", "person: man, woman"]}
    got = usual.client.post("/v1/segment", data=data, files={"image": image_file}).json()
    assert [one["name"] for one in got["classes"]] == ["cat", "dog", "owl", "person"]
    assert got["notes"] == ["'cat, dog' names 2 classes"]
    [phrase] = usual.segment(image_file, ["cat, dog"]).json()["classes"]
    assert phrase["name"] == "cat, dog"


def test_words_that_the_model_was_not_taught_have_notes(start: Any, mini: Segmenter, image_file: bytes) -> None:
    small = mini.with_settings(mini.settings.replace(size=64))
    notes = start(small).segment(image_file, "dog; Hund").json()["notes"]
    assert notes == TaughtWords(mini.checkpoint).notes(parse_classes("Hund")) != []


def test_background_words(usual: Any, own_tiny: Segmenter, image_file: bytes) -> None:
    def confidence(**values: Any) -> list[float]:
        return [one["confidence"] for one in usual.segment(image_file, **values).json()["classes"]]

    automatic, none = confidence(), confidence(background="none")
    assert automatic != none
    assert confidence(background="auto") == automatic
    assert confidence(background=None) == confidence(background=[]) == none
    assert confidence(background="sky; wall") == confidence(background=["sky", "wall"]) != none


def test_model_and_refiner_must_be_the_served_ones(usual: Any, tiny: Segmenter, image_file: bytes) -> None:
    name = usual.service.model.name
    assert usual.segment(image_file, model=name, refiner="none").status_code == 200
    assert usual.segment(image_file, model="ViT-L/14").status_code == 404
    refused(usual.segment(image_file, refiner="sd2.1"), 422, "expected none, got another")
    folder = str(tiny.checkpoint.folder.parent)
    layer = usual.segment(image_file, settings={"select_layer": 900})
    for response in (usual.client.get("/v1/models"), usual.segment(image_file), layer):
        assert folder not in response.text


def test_refiner_on_and_off(start: Any, tiny: Segmenter, image_file: bytes) -> None:
    service = start(tiny.with_refiner("self"))
    refined, named, plain = (
        service.segment(image_file, settings={"refine_size": 64}, refiner=name).json()
        for name in (None, "self", "none")
    )
    assert (refined["refiner"], named["refiner"], plain["refiner"]) == ("self", "self", None)
    assert refined["classes"] == named["classes"] != plain["classes"]


def test_request_does_not_load_a_proxy_model(
    start: Any, tiny: Segmenter, dino_folder: Path, image_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = tiny.settings.replace(attention="proxy", proxy_model=str(dino_folder), refine_vae=str(dino_folder))
    service = start(tiny.with_settings(proxy))
    monkeypatch.setattr("cliper.refiners.registry.load_refiner", None)
    answer = service.segment(image_file).json()
    assert answer["classes"] != service.segment(image_file, settings={"attention": "fused"}).json()["classes"]
    assert str(dino_folder.parent) not in service.client.get("/v1/models").text


def test_models_describes_the_served_model(start: Any, tiny: Segmenter) -> None:
    service = start(tiny, queue=7, megapixels=2.5)
    told = service.client.get("/v1/models").json()
    assert told["version"] == cliper.__version__
    (model,) = told["models"]
    served = tiny.settings.replace(refine_max_patches=4096)  # a limit for DINO refiners, which have none of their own
    assert model["settings"] == json.loads(json.dumps(served.to_dict()))
    assert (model["device"], model["dtype"], model["batch"], model["refiner"]) == ("cpu", "float32", 1, None)
    assert (model["limits"]["queue"], model["limits"]["megapixels"]) == (7, 2.5)


def test_health_and_metrics(start: Any, image_file: bytes) -> None:
    service = start()
    assert service.client.get("/healthz").json() == {"status": "alive"}
    service.segment(image_file)
    service.client.post("/v1/segment", content=b"", headers={"Content-Type": "text/plain"})
    service.client.get("/some/secret/path")
    service.client.request("BREW", "/healthz")
    text = service.client.get("/metrics").text
    for status in (200, 415):
        assert f'cliper_requests_total{{method="POST",path="/v1/segment",status="{status}"}} 1.0' in text
    assert 'cliper_requests_total{method="GET",path="other",status="404"} 1.0' in text
    assert "secret" not in text
    assert "BREW" not in text
    assert "cliper_requests_in_flight 0.0" in text
    assert "cliper_batch_images_count 1.0" in text
