"""``output: maps`` and ``POST /v1/export``: the same labels as the server's, in every format."""

from __future__ import annotations

import base64
import io
import zipfile
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from server_in_process import png, refused

from cliper.formats.json_result import decode_maps
from cliper.ops.labels import assign_labels
from cliper.segmenter import Segmenter


def export(server: Any, format: str, image: dict[str, Any], **values: Any) -> Any:
    body = {"format": format, "classes": ["cat", "dog"], "images": [{"name": "a.png", **image}], **values}
    return server.client.post("/v1/export", json=body)


def maps_of(server: Any, file: bytes) -> dict[str, Any]:
    response = server.segment(file, output="maps").json()
    return {"width": response["width"], "height": response["height"], "maps": response["maps"]}


def labels_in(response: Any) -> np.ndarray:
    assert response.status_code == 200, response.text
    return np.asarray(Image.open(io.BytesIO(response.content)))


@pytest.mark.parametrize(
    ("refiner", "sensitivity", "edge_weight"), [(None, 0.5, 0), ("self", 0.5, 0), (None, 0.7, 0), (None, 0.5, 9)]
)
def test_labels_of_exported_maps_are_those_of_the_segmenter(
    start: Any, tiny: Segmenter, image_file: bytes, refiner: str | None, sensitivity: float, edge_weight: float
) -> None:
    settings = tiny.settings.replace(sensitivity=sensitivity, edge_weight=edge_weight)
    segmenter = tiny.with_refiner(refiner).with_settings(settings)
    server = start(segmenter)
    image = maps_of(server, image_file)
    assert (image["maps"]["fused"] is None) == (refiner is None and not edge_weight)
    expected = segmenter(Image.open(io.BytesIO(image_file)), ["cat", "dog"]).labels
    # 16 bit can only change pixels in which two classes are equal to 1e-5.
    assert (labels_in(export(server, "labels", image)) == expected).mean() > 0.999
    thresholds = server.segment(image_file).json()["thresholds"]  # in effect: the sensitivity has moved them
    assert (labels_in(export(server, "labels", image, thresholds=thresholds)) == expected).mean() > 0.999


def test_export_at_other_thresholds_and_without_a_hidden_class(usual: Any, image_file: bytes) -> None:
    image = maps_of(usual, image_file)
    thresholds = {"score_threshold": 0.0, "background_threshold": 0.5, "normalize": True}
    labels = labels_in(export(usual, "labels", image, thresholds=thresholds))
    tensor = torch.from_numpy(decode_maps(image["maps"]["refined"], 2))
    expected = assign_labels(tensor, tensor, (64, 96), background_threshold=0.5, score_threshold=0.0)
    assert np.array_equal(labels, expected.numpy())
    hidden = labels_in(export(usual, "labels", {**image, "hidden": [1]}, thresholds=thresholds))
    assert np.array_equal(hidden, np.where(labels == 1, 0, labels))


def test_masks_of_a_response_are_a_label_map(usual: Any, image_file: bytes) -> None:
    response = usual.segment(image_file).json()
    image = {"width": 96, "height": 64, "masks": response["masks"]}
    png = base64.b64decode(usual.segment(image_file, output="png").json()["png"])
    assert np.array_equal(labels_in(export(usual, "labels", image)), np.asarray(Image.open(io.BytesIO(png))))
    refused(export(usual, "npz", image), 422, "maps")


def test_overlays_and_several_images(usual: Any, image_file: bytes) -> None:
    image = {**maps_of(usual, image_file), "image": base64.b64encode(image_file).decode()}
    response = export(usual, "overlay", image)
    assert response.headers["content-disposition"] == 'attachment; filename="a.overlay.png"'
    images = [{"name": name, **image} for name in ("a.png", "../b.jpg")]
    body = {"format": "coco", "classes": ["cat", "dog"], "images": images}
    response = usual.client.post("/v1/export", json=body)
    assert response.headers["content-type"] == "application/zip"
    assert {"a.coco.json", "b.coco.json"} < set(zipfile.ZipFile(io.BytesIO(response.content)).namelist())
    refused(usual.client.post("/v1/export", json={**body, "images": images[:1] * 2}), 422, "two alike")


def test_exports_that_do_not_fit_are_refused(start: Any, image_file: bytes) -> None:
    server = start(tasks=1, megapixels=0.01)
    image = maps_of(server, image_file)
    refused(export(server, "tiff", image), 422, "expected a format")
    refused(export(server, "labels", image, classes=["cat"]), 422, "maps")
    refused(export(server, "labels", {"width": 96, "height": 64}), 422, "expected maps, or masks")
    refused(export(server, "overlay", image), 422, "image")
    refused(export(server, "labels", {**image, "width": 1000}), 422, "megapixels")
    wrong = {**image, "image": base64.b64encode(png(Image.new("RGB", (8, 8)))).decode()}
    refused(export(server, "overlay", wrong), 422, "96x64", "8x8")
    body = {"format": "labels", "classes": ["cat", "dog"], "images": [{"name": "a.png", **image}] * 2}
    refused(server.client.post("/v1/export", json=body), 422, "at most 1 images")
    masks = [{"label": 1, "rle": {"size": [9, 9], "counts": "0"}}]
    refused(export(server, "labels", {"width": 96, "height": 64, "masks": masks}), 422, "masks")
