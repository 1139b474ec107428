"""The two graphs of an export as modules, and their translation to ONNX.

The modules call the package's own encoder, fusion and refiner, so that a graph computes what the package computes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliper.ops.class_maps import build_text_classifier, class_maps
from cliper.ops.recipes import RECIPES
from cliper.refiners.affinity import propagate
from cliper.refiners.self_similarity import SelfSimilarityRefiner

if TYPE_CHECKING:
    from onnx import ModelProto

    from cliper.encoders.clip import ClipEncoder
    from cliper.settings import Settings

__all__ = ["ImageGraph", "TextGraph", "image_graph", "text_graph"]

OPSET = 18
"""Version of ONNX's operators: the lowest that PyTorch's exporter writes, which all runtimes of 2023 and later read."""

# Sizes of the example that a graph is traced with: all differ, so that no dynamic size is taken for another.
_ROWS, _COLUMNS, _CLASSES, _BACKGROUND, _TEXTS, _TOKENS = 5, 7, 3, 4, 6, 11


class TextGraph(nn.Module):
    """Token ids [n, T] int64 -> unit embeddings [n, D]."""

    def __init__(self, encoder: ClipEncoder) -> None:
        super().__init__()
        self._encoder = encoder

    def forward(self, tokens: Tensor) -> Tensor:
        return self._encoder.text.embed_tokens(tokens)


class ImageGraph(nn.Module):
    """Normalised pixels, text embeddings and two settings -> class maps, and refined ones with a refiner.

    Args:
        encoder: loaded without kernels.
        settings: of the method, its recipe resolved.
        refiner: None, or the one that reads the encoder's own layers.
    """

    def __init__(self, encoder: ClipEncoder, settings: Settings, refiner: SelfSimilarityRefiner | None) -> None:
        super().__init__()
        self._encoder, self._settings, self._refiner = encoder, settings, refiner

    def forward(
        self,
        pixels: Tensor,
        foreground: Tensor,
        background: Tensor,
        logit_scale: Tensor,
        map_threshold: Tensor,
        refiner_pixels: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Class maps [C, h, w], and with a refiner the refined ones [C, S, S'].

        Args:
            pixels: [1, 3, H, W], for the encoder.
            foreground: [C, D].
            background: [B, D]; B may be 0 if C is above 1.
            logit_scale, map_threshold: scalars.
            refiner_pixels: [1, 3, R, R'], for the refiner.
        """
        settings, depth, count = self._settings, self._encoder.num_layers, foreground.shape[0]
        recipe = RECIPES[settings.recipe]
        [features] = self._encoder.encode_images(
            pixels,
            recipe=recipe,
            attention=settings.attention,
            layers=range(depth) if settings.fuse_features else [settings.select_layer % depth],
        )
        # The mean of the classes is a text too, unless there is one class: 0 rows of it, or 1.
        mean = foreground.mean(0, keepdim=True)[: torch.sym_min(count - 1, 1)]
        maps = class_maps(
            features.embeddings,
            features.affinity,
            build_text_classifier(foreground, torch.cat([background, mean]), with_mean=False),
            count,
            logit_scale=logit_scale,
            map_threshold=map_threshold,
            selected=settings.select_layer if settings.fuse_features else 0,
            recipe=recipe,
            fuse_features=settings.fuse_features,
        ).reshape(count, *features.grid)
        if self._refiner is None or refiner_pixels is None:
            return (maps,)
        patch, (height, width) = self._encoder.patch_size, refiner_pixels.shape[-2:]
        patches = self._encoder.patch_features(refiner_pixels, self._refiner.layer)[0].float()
        grid = (height // patch, width // patch)
        return maps, propagate(maps, patches, grid, **self._refiner.product_options)


def text_graph(encoder: ClipEncoder) -> ModelProto:
    """The text tower: ``tokens`` [n, T] int64, T up to the tower's limit, to ``embeddings`` [n, D]."""
    tokens = torch.ones(_TEXTS, _TOKENS, dtype=torch.int64)
    limit = encoder.text.max_tokens
    texts, length = torch.export.Dim("n"), torch.export.Dim("t", max=limit)
    return _translate(TextGraph(encoder), {"tokens": (tokens, {0: texts, 1: length})}, ["embeddings"])


def image_graph(
    encoder: ClipEncoder,
    settings: Settings,
    refiner: SelfSimilarityRefiner | None,
    shape: tuple[int, int] | None,
    refiner_shape: tuple[int, int] | None,
) -> ModelProto:
    """The image tower with the method, as :class:`ImageGraph`; inputs and outputs are named as there.

    Args:
        encoder, settings, refiner: as for :class:`ImageGraph`.
        shape: (H, W) of the pixels; None: any multiples of the patch size.
        refiner_shape: the same for the refiner's pixels.
    """
    Dim, patch, width = torch.export.Dim, encoder.patch_size, encoder.embedding_width

    def pixels(size: tuple[int, int] | None, names: str, rows: int, columns: int) -> tuple[Tensor, Any]:
        if size is not None:
            return torch.rand(1, 3, *size), {}
        return torch.rand(1, 3, patch * rows, patch * columns), {i + 2: patch * Dim(n) for i, n in enumerate(names)}

    inputs = {
        "pixels": pixels(shape, "hw", _ROWS, _COLUMNS),
        "foreground": (F.normalize(torch.rand(_CLASSES, width), dim=-1), {0: Dim("c")}),
        "background": (F.normalize(torch.rand(_BACKGROUND, width), dim=-1), {0: Dim("b")}),
        "logit_scale": (torch.tensor(settings.logit_scale), {}),
        "map_threshold": (torch.tensor(settings.map_threshold), {}),
    }
    outputs = ["class_maps"]
    if refiner is not None:
        inputs["refiner_pixels"] = pixels(refiner_shape, "rs", _ROWS + 4, _COLUMNS + 6)
        outputs.append("refined_maps")
    return _translate(ImageGraph(encoder, settings, refiner), inputs, outputs)


def _translate(module: nn.Module, inputs: Mapping[str, tuple[Tensor, Any]], outputs: Sequence[str]) -> ModelProto:
    """A module as an ONNX model; ``inputs`` has for each name an example and its dynamic dimensions."""
    from onnxscript import opset18

    def addcmul(self: Any, tensor1: Any, tensor2: Any, value: Any = 1.0) -> Any:
        # PyTorch's own translation takes no factor that depends on a dynamic size.
        return opset18.Add(self, opset18.Mul(opset18.Mul(tensor1, tensor2), value))

    examples, dynamic = zip(*inputs.values(), strict=True)
    with _quiet(), torch.no_grad():
        # Not by torch.onnx.export alone, which would give up a dynamic size without an error.
        traced = torch.export.export(module.eval(), examples, dynamic_shapes=dynamic, strict=False)
        program = torch.onnx.export(
            traced,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            custom_translation_table={torch.ops.aten.addcmul.default: addcmul},
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for item in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        del item.metadata_props[:]  # stack traces of the exporter, with paths of this machine
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No messages of the exporter about its own steps and about libraries that are not needed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as null, contextlib.redirect_stdout(null):  # noqa: PTH123
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
