"""The search for settings: its counts against labels that are assigned one by one, and what it chooses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cliper import Segmenter
from cliper.errors import InputError
from cliper.evaluation import ConfusionMatrix
from cliper.evaluation.labelled_images import MAX_PIXELS, LabelledImage, reduce_image
from cliper.evaluation.tune import count_thresholds, tune
from cliper.ops.labels import assign_labels, class_confidence, class_scores
from cliper.prompts import parse_classes

CLASSES = parse_classes("dog; grass; person: man, woman")


@pytest.mark.parametrize("normalize", [True, False])
def test_counts_equal_those_of_labels_assigned_with_each_pair_of_thresholds(normalize: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    maps, refined = torch.rand(4, 5, 6, generator=generator), torch.rand(4, 9, 8, generator=generator)
    refined[1] *= 0.3  # a class that the higher score thresholds turn off
    maps[1] *= 0.3
    truth = torch.randint(0, 5, (30, 40), generator=generator)
    limits, thresholds = [0.0, 0.4, 0.95, 2.0], [1e-4, 0.3, 0.6, 0.9]
    scores = class_scores(refined, maps, truth.shape, score_threshold=-1, normalize=normalize)
    confidence = class_confidence(refined, maps)
    counts = count_thresholds(scores.flatten(1), confidence, truth.flatten(), limits, thresholds)
    assert counts.shape == (4, 4, 2, 5)
    for row, limit in enumerate(limits):
        for column, threshold in enumerate(thresholds):
            labels = assign_labels(
                refined,
                maps,
                truth.shape,
                background_threshold=threshold,
                score_threshold=limit,
                normalize=normalize,
            )
            matrix = ConfusionMatrix(5)
            matrix.update(truth, labels)
            assert counts[row, column, 0].tolist() == matrix.matrix.diagonal().tolist()
            assert counts[row, column, 1].tolist() == matrix.matrix.sum(0).tolist()


def test_reduced_image_has_the_labels_of_its_pixels(tiny: Segmenter, make_image: Callable[..., Image.Image]) -> None:
    image = make_image(600, 300)
    encoded = tiny.encode_image(image)
    truth = np.arange(600 * 300).reshape(300, 600)
    small = reduce_image(LabelledImage(encoded, truth))
    height, width = small.truth.shape
    assert height * width <= MAX_PIXELS < 1.1 * height * width
    assert small.encoded.image.size == (width, height)
    assert small.encoded.views is encoded.views
    rows, columns = np.divmod(small.truth, 600)
    # The pixel's centre, half a step of the smaller grid from the border.
    assert abs(rows[0, 0] - 150 / height) <= 1
    assert abs(columns[-1, -1] - (599 - 300 / width)) <= 1
    unchanged = reduce_image(LabelledImage(tiny.encode_image(make_image(50, 40)), np.zeros((40, 50), np.uint8)))
    assert unchanged.truth.shape == (40, 50)


def labelled(segmenter: Segmenter, draw: Callable[..., Image.Image], count: int, truth: Any) -> list[LabelledImage]:
    images = [draw(96, 64, seed=seed) for seed in range(count)]
    return [LabelledImage(segmenter.encode_image(image), truth(seed, image)) for seed, image in enumerate(images)]


def miou(segmenter: Segmenter, images: list[LabelledImage], background: Any) -> float:
    matrix = ConfusionMatrix(len(CLASSES) + 1)
    for image in images:
        matrix.update(image.truth, segmenter(image.encoded, CLASSES, background).labels)
    return matrix.miou


@pytest.mark.full
@pytest.mark.parametrize("background", ["auto", "wall; sky", None])
def test_search_finds_settings_that_made_the_ground_truth(
    tiny: Segmenter, make_image: Callable[..., Image.Image], monkeypatch: pytest.MonkeyPatch, background: Any
) -> None:
    other = tiny.with_settings(tiny.settings.replace(logit_scale=15, background_threshold=0.5))

    def truth(seed: int, image: Image.Image) -> np.ndarray:
        return other(image, CLASSES, "sky; tree").labels

    images = labelled(tiny, make_image, 4, truth)

    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("a network ran on an image")

    monkeypatch.setattr(tiny.encoder, "encode_images", fail)
    steps: list[str] = []
    result = tune(tiny, images, CLASSES, background, folds=3, notify=steps.append)
    assert steps == ["fold 1 of 3", "fold 2 of 3", "fold 3 of 3", "all images"]
    assert result.before.miou == pytest.approx(miou(tiny, images, background), abs=1e-9)
    assert result.improved
    assert result.after.miou > result.before.miou
    found = result.background if isinstance(result.background, str) else list(result.background)
    reached = miou(tiny.with_settings(result.settings), images, found)
    assert reached > result.before.miou
    changed = {"logit_scale", "score_threshold", "background_threshold"}
    old, new = tiny.settings.to_dict(), result.settings.to_dict()
    assert {name for name in old if old[name] != new[name]} <= changed


def test_given_settings_are_kept_where_tuning_does_not_help(
    tiny: Segmenter, make_image: Callable[..., Image.Image]
) -> None:
    # The truth is what the given settings predict: nothing can be better.
    def truth(seed: int, image: Image.Image) -> np.ndarray:
        return tiny(image, CLASSES).labels

    given = tiny.with_settings(tiny.settings.replace(sensitivity=0.5))
    result = tune(given, labelled(tiny, make_image, 3, truth), CLASSES)
    assert (result.improved, result.before.miou) == (False, 1.0)
    assert result.settings is given.settings
    assert result.background == "auto"


def test_chosen_templates_are_a_candidate(tiny: Segmenter, make_image: Callable[..., Image.Image]) -> None:
    other = tiny.with_settings(tiny.settings.replace(templates=("an old drawing of the {}",), sensitivity=0.5))

    def truth(seed: int, image: Image.Image) -> np.ndarray:
        return other(image, CLASSES, "sky; tree").labels

    given = tiny.with_settings(tiny.settings.replace(sensitivity=0.5))
    images = labelled(tiny, make_image, 3, truth)
    result = tune(given, images, CLASSES, "sky; tree", templates=other.settings.templates, folds=2)
    assert result.before.miou == pytest.approx(miou(given, images, "sky; tree"), abs=1e-9)
    assert result.improved
    assert result.settings.templates == other.settings.templates


def test_search_with_a_chosen_background_names_its_words_only_if_they_change(
    tiny: Segmenter, make_image: Callable[..., Image.Image]
) -> None:
    given = tiny.with_settings(tiny.settings.replace(sensitivity=0.5, background_count=3))

    def truth(seed: int, image: Image.Image) -> np.ndarray:
        return given(image, CLASSES).labels

    result = tune(given, labelled(tiny, make_image, 2, truth), CLASSES)
    assert (result.improved, result.before.miou, result.background) == (False, 1.0, "auto")


def test_one_class_always_has_background_names(tiny: Segmenter, make_image: Callable[..., Image.Image]) -> None:
    def truth(seed: int, image: Image.Image) -> np.ndarray:
        return (np.arange(64 * 96).reshape(64, 96) % 96 < 40).astype(np.uint8)

    result = tune(tiny, labelled(tiny, make_image, 2, truth), CLASSES[:1], "wall")
    assert result.background != "none"


def test_ignored_background_is_not_counted(tiny: Segmenter, make_image: Callable[..., Image.Image]) -> None:
    def truth(seed: int, image: Image.Image) -> np.ndarray:
        return np.where(np.arange(96) < 48, 0, 1 + np.arange(64)[:, None] // 22).astype(np.uint8)

    result = tune(tiny, labelled(tiny, make_image, 2, truth), CLASSES, ignore=(0, 255))
    assert np.isnan(result.before.iou[0])
    assert not np.isnan(result.before.iou[1:]).any()


def test_fewer_than_two_images_are_refused(tiny: Segmenter) -> None:
    with pytest.raises(InputError, match="expected at least 2 images and 2 folds, got 0 and 5"):
        tune(tiny, [], CLASSES)
