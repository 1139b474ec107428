"""CLIPer as a remote source of FiftyOne's model zoo. README.md says how to use it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import fiftyone.core.labels as fol
import fiftyone.core.models as fom
import numpy as np

import cliper
from cliper.prompts import parse_classes

_MODELS = {"cliper/mini": "mini", "cliper/ViT-B-16": "ViT-B/16", "cliper/ViT-L-14": "ViT-L/14"}


class CliperModel(fom.Model):
    """Semantic segmentation by any words.

    Args:
        segmenter: model, refiner and settings.
        classes: ``"horse; person: man, woman"``, or a list; the value of a class in masks is its number, from 1.
        background: as for :class:`cliper.Segmenter`.
    """

    media_type = "image"
    ragged_batches = False  # images of a batch may have several sizes
    transforms = None
    preprocess = False

    def __init__(self, segmenter: cliper.Segmenter, classes: str | Sequence[str], background: str) -> None:
        self._segmenter, self._classes, self._background = segmenter, parse_classes(classes), background
        self.mask_targets = {label: one.name for label, one in enumerate(self._classes, start=1)}
        """Names of the values of masks, for ``dataset.mask_targets``."""

    def predict(self, arg: np.ndarray) -> fol.Segmentation:
        """The mask of an image [H, W, 3], uint8; 0 is background."""
        (label,) = self.predict_all([arg])
        return label

    def predict_all(self, args: Iterable[np.ndarray]) -> list[fol.Segmentation]:
        """The masks of several images."""
        results = self._segmenter(list(args), self._classes, self._background)
        kind = np.uint8 if len(self._classes) < 256 else np.uint16
        return [fol.Segmentation(mask=result.labels.astype(kind)) for result in results]


def download_model(model_name: str, model_path: str) -> None:
    """Download the weights, which ``cliper`` stores; the file at ``model_path`` only says that it did."""
    checkpoint = cliper.Segmenter.from_pretrained(_MODELS[model_name]).checkpoint
    Path(model_path).write_text(f"{checkpoint.name}\n", encoding="utf-8")


def load_model(
    model_name: str, model_path: str, classes: str | Sequence[str], background: str = "auto", **options: Any
) -> CliperModel:
    """The model of :func:`fiftyone.zoo.load_zoo_model`.

    Args:
        model_name: of the manifest.
        model_path: is not used.
        classes: as for :class:`CliperModel`.
        background: as for :class:`cliper.Segmenter`.
        options: ``refiner``, ``settings``, ``device``, ``dtype`` and ``seed`` of
            :meth:`cliper.Segmenter.from_pretrained`.
    """
    segmenter = cliper.Segmenter.from_pretrained(_MODELS[model_name], **options)
    return CliperModel(segmenter, classes, background)
