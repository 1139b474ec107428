"""Views of an image (flip, extra sizes), and classes that are chosen for the whole image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from cliper import Segmenter
from cliper.errors import SettingsError
from cliper.ops import RECIPES
from segmenter_helpers import clip_encoder
from test_differential import inputs, random_clip

CLASSES, BACKGROUND = ["dog", "grass", "person"], ["wall", "sky"]


def changed(segmenter: Segmenter, **changes: Any) -> Segmenter:
    return segmenter.with_settings(segmenter.settings.replace(**changes))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("sizes", [(), (48, 96)])
def test_maps_are_the_mean_over_views(
    tiny: Segmenter, make_image: Callable[..., Image.Image], flip: bool, sizes: tuple[int, ...]
) -> None:
    image = make_image()
    foreground, background = tiny.encode_text(CLASSES), tiny.encode_text(BACKGROUND)
    expected = []
    for size in (tiny.settings.size, *sizes):
        pixels = tiny.preprocess(image, size=size)
        views = [tiny.class_maps(pixels, foreground, background)]
        if flip:
            views.append(tiny.class_maps(pixels.flip(-1), foreground, background).flip(-1))
        for view in views:
            expected.append(F.interpolate(view[None], expected[0].shape[-2:], mode="bilinear")[0] if expected else view)
    got = changed(tiny, flip=flip, extra_sizes=sizes)(image, CLASSES, BACKGROUND)
    # float32 sums in another order
    np.testing.assert_allclose(got.maps, torch.stack(expected).mean(0).numpy(), atol=1e-6)


def test_images_of_a_batch_have_views_of_their_own(own_tiny: Segmenter, make_image: Callable[..., Image.Image]) -> None:
    own_tiny.batch_size = 3
    segmenter = changed(own_tiny, flip=True, extra_sizes=(80,), class_top=2)
    images = [make_image(seed=seed) for seed in range(3)]
    for image, result in zip(images, segmenter(images, CLASSES), strict=True):
        alone = segmenter(image, CLASSES)
        # products of another shape sum in another order
        np.testing.assert_allclose(result.maps, alone.maps, atol=1e-5)


def test_views_are_kept_for_other_words(
    own_tiny: Segmenter, make_image: Callable[..., Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = changed(own_tiny.with_refiner("self"), flip=True, extra_sizes=(80,), class_top=1)
    encoded = segmenter.encode_image(make_image())
    expected = segmenter(make_image(), "cat; cow").labels
    assert len(encoded.views) == 4
    monkeypatch.setattr(segmenter.encoder, "encode_images", None)
    assert np.array_equal(segmenter(encoded, "cat; cow").labels, expected)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"flip": True}, "flip"),
        ({"extra_sizes": (80,)}, "extra_sizes"),
        ({"window_context": True}, "window_context"),
        ({"class_top": 1}, "choice of classes"),
    ],
)
def test_image_that_lacks_what_a_setting_needs_is_refused(
    tiny: Segmenter, make_image: Callable[..., Image.Image], change: dict[str, Any], name: str
) -> None:
    encoded = tiny.encode_image(make_image())
    with pytest.raises(SettingsError, match=f"encoded with another {name}; encode it again"):
        changed(tiny, **change)(encoded, ["dog"])


def test_embedding_of_the_whole_image_is_that_of_transformers() -> None:
    model, (pixels, _, _) = random_clip(16, 3, seed=1), inputs(16, (7, 7), seed=1)  # the grid of its training
    options: dict[str, Any] = {"recipe": RECIPES["conference"], "attention": "fused", "layers": [0]}
    [features] = clip_encoder(model).encode_images(pixels[None], **options, whole_image=True)
    with torch.no_grad():
        pooled = model.vision_model(pixel_values=pixels[None]).pooler_output
        expected = F.normalize(model.visual_projection(pooled), dim=-1)[0]
    torch.testing.assert_close(features.image_embedding, expected, atol=1e-5, rtol=0)  # float32


@pytest.mark.parametrize("refiner", [None, "self"])
@pytest.mark.parametrize("settings", [{"class_top": 2}, {"class_min_score": 0.9}, {"class_top": 1, "flip": True}])
def test_only_the_most_likely_classes_are_looked_for(
    tiny: Segmenter, make_image: Callable[..., Image.Image], refiner: str | None, settings: dict[str, Any]
) -> None:
    segmenter = changed(tiny, **settings, score_threshold=0, logit_scale=5).with_refiner(refiner)
    encoded = segmenter.encode_image(make_image())
    result = segmenter(encoded, CLASSES, BACKGROUND)
    embeddings = torch.stack([view.image_embedding for view in encoded.views if view.image_embedding is not None])
    logits = 5 * embeddings @ torch.cat([segmenter.encode_text(CLASSES), segmenter.encode_text(BACKGROUND)]).T
    likelihood = logits[:, :3].exp()
    likelihood = likelihood.mean(0) if len(embeddings) == 1 else logits.softmax(-1)[:, :3].mean(0)
    kept = likelihood >= settings.get("class_min_score", 0) * likelihood.max()
    if top := settings.get("class_top"):
        kept &= likelihood >= likelihood.sort(descending=True).values[top - 1]
    assert 0 < kept.sum() < 3  # else there would be nothing to test
    assert ((result.confidence > 0) == kept.numpy()).all()
    for name, is_kept in zip(CLASSES, kept.tolist(), strict=True):
        if not is_kept:
            assert not result.mask(name).any()
            assert "most likely" in result.absent[name]


def test_reason_names_the_limit(tiny: Segmenter, make_image: Callable[..., Image.Image]) -> None:
    result = changed(tiny, class_top=1)(make_image(), CLASSES, BACKGROUND)
    missing = [name for name, value in zip(CLASSES, result.confidence, strict=True) if value == 0]
    assert len(missing) == 2
    reason = "not among the 1 most likely classes of the image (class_top)"
    assert [result.absent[name] for name in missing] == [reason] * 2
    assert [result.relabel(sensitivity=1).absent[name] for name in missing] == [reason] * 2
