"""Segmentation from the encoder's input: equal results, and parts of larger images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cliper.errors import ShapeError
from cliper.prompts import parse_classes, scene_background

CLASSES = "dog; green grass; person: man, woman"


def test_preprocessed_images_give_the_same_results(tiny: Any, make_image: Callable[..., Image.Image]) -> None:
    images = [make_image(80, 60), make_image(60, 80), make_image(80, 60, seed=2)]
    pixels = [tiny.preprocess(image) for image in images]
    results = [assign_labels() for assign_labels in tiny.segment_deferred(tiny.encode_images(images, pixels), CLASSES)]
    for result, expected in zip(results, tiny(images, CLASSES), strict=True):
        for name in ("labels", "confidence", "maps", "refined"):
            assert np.array_equal(getattr(result, name), getattr(expected, name)), name


def test_part_of_an_image_is_labelled_at_its_own_size(tiny: Any, make_image: Callable[..., Image.Image]) -> None:
    whole = make_image(160, 60)
    part = whole.crop((80, 0, 160, 60))
    pixels = tiny.preprocess(whole, (1, 2))
    (assign_labels,) = tiny.segment_deferred(tiny.encode_images([part], [pixels]), CLASSES)
    result = assign_labels()
    assert result.labels.shape == (60, 80)
    assert result.image == part
    background = tiny.encode_text(scene_background(parse_classes(CLASSES)))
    maps = tiny.class_maps(pixels, tiny.encode_text(CLASSES), background)
    assert np.array_equal(result.maps, maps.numpy())


def test_number_and_sides_of_preprocessed_pixels_are_checked(tiny: Any, make_image: Callable[..., Image.Image]) -> None:
    image = make_image(80, 60)
    with pytest.raises(ShapeError, match="as many images as pixels, got 1 and 0"):
        tiny.encode_images([image], [])
    with pytest.raises(ShapeError, match="multiples of the patch size 16, got 60x80"):
        tiny.encode_images([image], [torch.zeros(3, 60, 80)])
