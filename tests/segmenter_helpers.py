"""Encoders of random models, and comparison of results, for the tests of the segmenter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from transformers import CLIPModel

import cliper
from cliper.checkpoints.clip_config import ClipConfig
from cliper.encoders.clip import ClipEncoder

CLASSES = "dog; green grass; person: man, woman"


def clip_encoder(model: CLIPModel) -> ClipEncoder:
    """An encoder with the weights of a model of ``transformers``, without a tokenizer."""
    return ClipEncoder(ClipConfig.from_dict(model.config.to_dict()), model.state_dict(), Path())


def assert_same(a: cliper.Segmentation, b: cliper.Segmentation) -> None:
    """Equal to the last bit."""
    assert a.classes == b.classes
    for name in ("labels", "confidence", "maps", "refined"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert np.array_equal(np.asarray(a.image), np.asarray(b.image))


def assert_close(a: cliper.Segmentation, b: cliper.Segmentation, tolerance: float) -> None:
    """Maps equal within a tolerance; labels may differ in the few pixels where two scores are that close."""
    assert a.classes == b.classes
    assert np.abs(a.maps - b.maps).max() <= tolerance
    assert np.abs(a.confidence - b.confidence).max() <= tolerance
    assert (a.labels != b.labels).mean() <= 0.001
