"""The graphs of an export compute in both runtimes what the package computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import cliper
from cliper.encoders.class_map_predictor import ClassMapPredictor
from cliper.encoders.tokenizer import load_tokenizer
from cliper.ops.class_maps import build_text_classifier

Export = Callable[..., Path]
TEXTS = ["a photo of a dog.", "There is a wooden bench in the scene, isn't it?", "x"]

# Sums in another order, in layers of which each adds to the error, and a logit scale of 30 before the softmax: at most
# 6e-6 was measured, where maps reach 1.6.
TOLERANCE = 2e-5
# The error of a weight in float16 is at most 2^-11 of it, in int8 1/254 of the largest weight of its channel. Values
# near the map threshold become 0 or not, and random weights amplify more than trained ones. Measured: at most 0.034 and
# 0.17 for the tiny model, 0.038 in int8 for mini, whose weights are float16 numbers.
STORED = {
    ("tiny", "float16"): 0.05,
    ("tiny", "int8"): 0.25,
    ("mini", "float16"): TOLERANCE,
    ("mini", "int8"): 0.06,
}


def unit(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def inputs_for(
    segmenter: cliper.Segmenter, rows: int, columns: int, classes: int, background: int
) -> dict[str, torch.Tensor]:
    patch, width = segmenter.encoder.patch_size, segmenter.encoder.embedding_width
    generator = torch.Generator().manual_seed(rows)
    return {
        "pixels": torch.randn(1, 3, patch * rows, patch * columns, generator=generator),
        "foreground": unit(classes, width),
        "background": unit(background, width, 1),
        "logit_scale": torch.tensor(segmenter.settings.logit_scale),
        "map_threshold": torch.tensor(segmenter.settings.map_threshold),
    }


def expected_maps(segmenter: cliper.Segmenter, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Of the package, as ``Segmenter.__call__`` computes them: without the mean of one class."""
    settings = segmenter.settings.replace(
        logit_scale=float(inputs["logit_scale"]), map_threshold=float(inputs["map_threshold"])
    )
    predictor = ClassMapPredictor(segmenter.encoder, settings, "test")
    [features] = predictor.encode(inputs["pixels"])
    count = len(inputs["foreground"])
    texts = build_text_classifier(inputs["foreground"], inputs["background"], with_mean=count > 1)
    return predictor.predict(features, texts, count)


def to_numpy(inputs: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in inputs.items()}


@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("model", ["tiny", "mini"])
def test_text_graph_equals_the_text_tower(
    model: str, target: str, export_to: Export, load: Callable, request: pytest.FixtureRequest
) -> None:
    folder, segmenter = export_to(model, target), request.getfixturevalue(model)
    ids = [row.ids for row in load_tokenizer(segmenter.checkpoint.folder).encode_batch(TEXTS)]
    run = load(folder, "text")
    for length in (max(map(len, ids)), 77):
        padded = np.array([row + [0] * (length - len(row)) for row in ids])
        (embeddings,) = run({"tokens": padded})
        np.testing.assert_allclose(embeddings, segmenter.encoder.encode_texts(TEXTS), atol=1e-5, rtol=0)  # rounding


@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("model", ["tiny", "mini"])
def test_class_maps_of_any_size_and_number_of_words_are_equal(
    model: str, target: str, export_to: Export, load: Callable, request: pytest.FixtureRequest
) -> None:
    segmenter = request.getfixturevalue(model)
    run = load(export_to(model, target), "image")
    for shape in ((4, 4, 3, 4), (1, 3, 1, 1), (9, 13, 40, 2), (6, 4, 2, 0)):
        inputs = inputs_for(segmenter, *shape)
        (maps,) = run(to_numpy(inputs))
        np.testing.assert_allclose(maps, expected_maps(segmenter, inputs), atol=TOLERANCE, rtol=0, err_msg=str(shape))


def test_logit_scale_and_map_threshold_are_inputs(export_to: Export, load: Callable, tiny: cliper.Segmenter) -> None:
    inputs = inputs_for(tiny, 5, 6, 3, 2)
    inputs |= {"logit_scale": torch.tensor(3.0), "map_threshold": torch.tensor(0.9)}
    (maps,) = load(export_to("tiny"), "image")(to_numpy(inputs))
    np.testing.assert_allclose(maps, expected_maps(tiny, inputs), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("model", ["tiny", "mini"])
@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_stored_weights_are_smaller_and_maps_are_near(
    precision: str, model: str, target: str, export_to: Export, load: Callable, request: pytest.FixtureRequest
) -> None:
    segmenter, folder = request.getfixturevalue(model), export_to(model, target, precision=precision)
    inputs = inputs_for(segmenter, 8, 6, 4, 5)
    (maps,) = load(folder, "image")(to_numpy(inputs))
    np.testing.assert_allclose(maps, expected_maps(segmenter, inputs), atol=STORED[model, precision], rtol=0)
    if model == "mini":  # of the tiny one most is the graph, not its weights
        share = {"float16": 0.55, "int8": 0.3}[precision]
        assert size(folder) < share * size(export_to(model, target)), (size(folder), size(export_to(model, target)))


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.suffix in (".onnx", ".bin"))


@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("model", ["tiny", "mini"])
def test_refiner_self_in_the_graph_equals_the_refiner(
    model: str, target: str, export_to: Export, load: Callable, request: pytest.FixtureRequest
) -> None:
    segmenter = request.getfixturevalue(model).with_refiner("self")
    encoder, refiner = segmenter.encoder, segmenter.refiner
    inputs = inputs_for(segmenter, 5, 6, 3, 2)
    image = torch.rand(3, 7 * encoder.patch_size, 9 * encoder.patch_size, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values)[:, None, None] for values in (encoder.pixel_mean, encoder.pixel_std))
    inputs["refiner_pixels"] = ((image - mean) / std)[None]
    maps, refined = load(export_to(model, target, refiner="self"), "image")(to_numpy(inputs))
    expected = expected_maps(segmenter, inputs)
    np.testing.assert_allclose(maps, expected, atol=TOLERANCE, rtol=0)
    settings = segmenter.settings.replace(refine_size=tuple(image.shape[1:]))
    [expected_refined] = refiner.refine([image], [expected], settings)
    np.testing.assert_allclose(refined, expected_refined, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [{"recipe": "preprint-h"}, {"recipe": "preprint", "attention": "k-k", "fuse_features": False, "select_layer": -2}],
)
def test_settings_are_part_of_the_graph(
    changes: dict[str, Any], export_to: Export, load: Callable, tiny: cliper.Segmenter
) -> None:
    other = tiny.with_settings(tiny.settings.replace(**changes))
    inputs = inputs_for(other, 4, 5, 3, 2)
    (maps,) = load(export_to("tiny", settings=other.settings), "image")(to_numpy(inputs))
    np.testing.assert_allclose(maps, expected_maps(other, inputs), atol=TOLERANCE, rtol=0)


def test_fixed_shape(export_to: Export, load: Callable, tiny: cliper.Segmenter) -> None:
    run = load(export_to("tiny", shape=(64, 96)), "image")
    inputs = inputs_for(tiny, 4, 6, 3, 2)
    (maps,) = run(to_numpy(inputs))
    np.testing.assert_allclose(maps, expected_maps(tiny, inputs), atol=TOLERANCE, rtol=0)
    with pytest.raises(Exception, match="pixels"):
        run(to_numpy(inputs_for(tiny, 4, 5, 3, 2)))


def test_weights_too_large_for_one_file_get_their_own(
    export_to: Export, load: Callable, tiny: cliper.Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cliper.export.weights.MAX_FILE_BYTES", 1000)
    for target in ("onnx", "openvino"):
        folder = export_to("tiny", target, "int8", shape=(64, 96))
        assert (folder / "image.onnx.data").exists() == (target == "onnx")
        inputs = inputs_for(tiny, 4, 6, 3, 2)
        (maps,) = load(folder, "image")(to_numpy(inputs))
        np.testing.assert_allclose(maps, expected_maps(tiny, inputs), atol=STORED["tiny", "int8"], rtol=0)
