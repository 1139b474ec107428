"""The choice of templates against entropies computed by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image

from cliper.errors import InputError
from cliper.prompts import parse_classes
from cliper.template_selection import choose_templates

CLASSES = parse_classes("dog; grass; person: man, woman")
TEMPLATES = ("a photo of a {}.", "{}", "the {} in an old drawing", "a small {} and other things", "no {}")


@pytest.mark.parametrize("changes", [{}, {"fuse_features": False, "select_layer": 1}, {"merge_synonyms": "logsumexp"}])
def test_templates_of_low_entropy_are_chosen(
    tiny: Any, make_image: Callable[..., Image.Image], changes: dict[str, Any]
) -> None:
    settings = tiny.settings.replace(templates=TEMPLATES, **changes)
    segmenter = tiny.with_settings(settings)
    features = [segmenter.encode_image(make_image(*size)).views[0] for size in ((96, 64), (64, 128))]
    entropies = []
    for template in TEMPLATES:
        one = tiny.with_settings(settings.replace(templates=(template,)))
        rows, groups, _ = one.text_classifier(CLASSES, "wall; sky")
        by_image = []
        for image in features:
            patches = image.embeddings[0 if changes.get("fuse_features") is False else -1]
            weights = (settings.logit_scale * patches.double() @ rows.double().T).exp()
            if groups is not None:
                weights[:, groups == 2] /= 2
            shares = weights / weights.sum(1, keepdim=True)
            if groups is not None:
                shares = torch.stack([shares[:, groups == text].sum(1) for text in range(6)], 1)
            by_image.append(-(shares * shares.log()).sum(1).mean())
        entropies.append(float(sum(by_image)) / 2)
    mean = sum(entropies) / len(entropies)
    expected = tuple(t for t, entropy in zip(TEMPLATES, entropies, strict=True) if entropy <= mean)
    assert min(abs(entropy - mean) for entropy in entropies) > 1e-4  # beyond float32's rounding
    assert choose_templates(segmenter, features, CLASSES, "wall; sky") == expected
    assert 0 < len(expected) < len(TEMPLATES)


def test_single_template_is_kept(tiny: Any, make_image: Callable[..., Image.Image]) -> None:
    image = tiny.encode_image(make_image()).views[0]
    assert choose_templates(tiny, [image], CLASSES, "auto") == tiny.settings.templates


def test_choice_without_images_is_refused(tiny: Any) -> None:
    with pytest.raises(InputError, match="expected at least one image to choose templates on, got none"):
        choose_templates(tiny, [], CLASSES, "auto")
