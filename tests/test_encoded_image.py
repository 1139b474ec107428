"""Encoding an image once and segmenting it by several lists of words."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from cliper import Segmenter
from cliper.errors import SettingsError

WORDS = (["dog"], ["dog", "cat"], "grass; sky: blue sky, clouds")


@pytest.mark.parametrize("refiner", [None, "self"])
@pytest.mark.parametrize("words", WORDS, ids=str)
def test_encoded_image_gives_the_result_of_the_image(
    tiny: Segmenter, make_image: Callable[..., Image.Image], refiner: str | None, words: str | list[str]
) -> None:
    image, one = make_image(), tiny.with_refiner(refiner)
    expected, got = one(image, words), one(one.encode_image(image), words)
    assert np.array_equal(expected.labels, got.labels)
    assert np.array_equal(expected.maps, got.maps)
    assert np.array_equal(expected.refined, got.refined)


def test_no_network_runs_on_an_encoded_image(
    tiny: Segmenter, make_image: Callable[..., Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = tiny.with_refiner("self")
    encoded = one.encode_image(make_image())

    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("a network ran")

    monkeypatch.setattr(one.encoder, "encode_images", fail)
    monkeypatch.setattr(one.encoder, "patch_features", fail)
    assert one(encoded, ["a new word"]).classes == ("a new word",)


def test_a_list_may_mix_images_and_encoded_images(tiny: Segmenter, make_image: Callable[..., Image.Image]) -> None:
    images = [make_image(seed=seed) for seed in range(4)]
    mixed = [images[0], tiny.encode_image(images[1]), images[2], tiny.encode_image(images[3])]
    for expected, got in zip(tiny(images, ["dog"]), tiny(mixed, ["dog"]), strict=True):
        assert np.array_equal(expected.labels, got.labels)


@pytest.mark.parametrize("name", ["logit_scale", "map_threshold", "score_threshold", "background_threshold"])
def test_settings_that_apply_to_class_maps_may_differ(
    tiny: Segmenter, make_image: Callable[..., Image.Image], name: str
) -> None:
    image = make_image()
    other = tiny.with_settings(tiny.settings.replace(**{name: 0.25}))
    expected = other(image, ["dog", "cat"])
    assert np.array_equal(other(tiny.encode_image(image), ["dog", "cat"]).labels, expected.labels)


@pytest.mark.parametrize(
    "change", [{"size": 32}, {"window": 32}, {"attention": "k-k"}, {"recipe": "preprint"}, {"fuse_features": False}]
)
def test_other_settings_of_the_networks_are_refused(
    tiny: Segmenter, make_image: Callable[..., Image.Image], change: dict[str, object]
) -> None:
    encoded = tiny.encode_image(make_image())
    other = tiny.with_settings(tiny.settings.replace(**change))
    with pytest.raises(SettingsError, match=f"encoded with another {next(iter(change))}; encode it again"):
        other(encoded, ["dog"])


def test_a_refiner_needs_an_image_that_was_encoded_with_it(
    tiny: Segmenter, make_image: Callable[..., Image.Image]
) -> None:
    refined = tiny.with_refiner("self")
    with pytest.raises(SettingsError, match="another refiner"):
        refined(tiny.encode_image(make_image()), ["dog"])
    encoded = refined.encode_image(make_image())
    assert tiny(encoded, ["dog"]).refiner is None
    with pytest.raises(SettingsError, match="another refine_size"):
        refined.with_settings(tiny.settings.replace(refine_size=64))(encoded, ["dog"])


def test_nbytes_counts_image_features_and_affinity(tiny: Segmenter, make_image: Callable[..., Image.Image]) -> None:
    image = make_image(width=96, height=64)
    encoded = tiny.encode_image(image)
    tensors = [encoded.views[0].embeddings, encoded.views[0].affinity]
    assert encoded.nbytes == 3 * 96 * 64 + sum(4 * tensor.numel() for tensor in tensors)
    refined = tiny.with_refiner("self").encode_image(image)
    assert refined.affinity is not None
    assert isinstance(refined.affinity.values, torch.Tensor)
    assert refined.nbytes == encoded.nbytes + 4 * refined.affinity.values.numel()
