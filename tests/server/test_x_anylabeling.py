"""The protocol of X-AnyLabeling's remote server, as its client uses it."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from server_in_process import refused


def predict(server: Any, image: str, prompt: str, **params: Any) -> Any:
    model = server.service.model.name
    body = {"model": model, "image": image, "params": {"text_prompt": prompt, **params}}
    return server.client.post("/v1/predict", json=body)


def test_models_are_listed_with_a_text_field(usual: Any) -> None:
    listed = usual.client.get("/v1/models").json()
    assert listed["success"] is True
    (model,) = listed["data"].values()
    assert model["batch_processing_mode"] == "text_prompt"
    assert {"edit_text", "button_send"} <= {widget["name"] for widget in model["widgets"]}


def test_shapes_are_the_polygons_of_the_classes(usual: Any, image_file: bytes) -> None:
    """Its client sends these parameters, whatever the server lists."""
    text = base64.b64encode(image_file).decode()
    extra = {"conf_threshold": 0.0, "iou_threshold": 0.0, "epsilon_factor": 0.0, "marks": []}
    shapes = predict(usual, "data:image/png;base64," + text, "cat. dog", **extra).json()["data"]["shapes"]
    expected = usual.segment(image_file, output="polygons", tolerance=0).json()["polygons"]
    assert [np.array(shape["points"]).tolist() for shape in shapes] == [one["points"] for one in expected]
    assert [shape["label"] for shape in shapes] == [["cat", "dog"][one["label"] - 1] for one in expected]
    assert {shape["shape_type"] for shape in shapes} == {"polygon"}
    assert predict(usual, text, "cat, dog", **extra).json()["data"]["shapes"] == shapes


def test_requests_that_cannot_be_answered(start: Any, image_file: bytes) -> None:
    server = start(token="secret")
    text = base64.b64encode(image_file).decode()
    refused(predict(server, text, "cat"), 401)
    server.client.headers["Token"] = "secret"  # as its client sends its API key
    assert predict(server, text, "cat").status_code == 200
    refused(predict(server, text, " . "), 422, "classes")
    refused(predict(server, "http://127.0.0.1:1/a.png", "cat"), 422, "base64")
