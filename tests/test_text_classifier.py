"""The texts of a call: classes, synonyms, background names and the mean of the classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cliper.ops import build_text_classifier
from cliper.prompts import parse_classes
from segmenter_helpers import assert_close, assert_same

CLASSES = parse_classes("dog; person: man, woman, child; grass")
BACKGROUND = parse_classes("sky: sky, clouds; wall")


@pytest.fixture
def merging(tiny: Any) -> Any:
    return tiny.with_settings(tiny.settings.replace(merge_synonyms="logsumexp"))


def test_mean_of_synonyms_gives_a_row_for_each_text(tiny: Any) -> None:
    found = tiny.text_classifier(CLASSES, BACKGROUND)
    expected = build_text_classifier(tiny.encode_text(CLASSES), tiny.encode_text(BACKGROUND))
    assert torch.equal(found.rows, expected)
    assert (found.groups, list(found.background)) == (None, BACKGROUND)


def test_merged_synonyms_have_a_row_each_and_the_mean_of_the_classes_stays(tiny: Any, merging: Any) -> None:
    found, mean = merging.text_classifier(CLASSES, BACKGROUND), tiny.text_classifier(CLASSES, BACKGROUND)
    words = parse_classes("dog; man; woman; child; grass; sky; clouds; wall")
    assert found.groups.tolist() == [0, 1, 1, 1, 2, 3, 3, 4, 5]
    # Other texts of a batch change the last bits of an embedding.
    torch.testing.assert_close(found.rows[:-1], tiny.encode_text(words), atol=1e-6, rtol=0)
    assert torch.equal(found.rows[-1], mean.rows[-1])


@pytest.mark.parametrize("window", [0, 112])
def test_merged_synonyms_of_a_result(tiny: Any, photo: Path, window: int) -> None:
    mean = tiny.with_settings(tiny.settings.replace(window=window))
    merging = tiny.with_settings(tiny.settings.replace(window=window, merge_synonyms="logsumexp"))
    assert_same(merging(photo, "dog; grass"), mean(photo, "dog; grass"))  # no synonyms
    # Equal synonyms are like one, to float32's rounding times the scale of 30.
    assert_close(merging(photo, "dog; person: man, man"), mean(photo, "dog; person: man"), 1e-5)
    synonyms = "dog; person: man, woman"
    assert abs(merging(photo, synonyms).maps - mean(photo, synonyms).maps).max() > 1e-3
    assert merging(photo, synonyms).classes == ("dog", "person")


def test_classifier_of_other_settings_is_not_taken_from_the_cache(tiny: Any, merging: Any) -> None:
    counted = tiny.with_settings(tiny.settings.replace(background_count=7))
    plain, chosen = tiny.text_classifier(CLASSES, "auto"), counted.text_classifier(CLASSES, "auto")
    assert len(plain.background) > 20
    assert len(chosen.background) == 7
    assert len(chosen.rows) == 3 + 7 + 1
    assert tiny.text_classifier(CLASSES, "auto") is plain
    assert merging.text_classifier(CLASSES, "auto").groups is not None
