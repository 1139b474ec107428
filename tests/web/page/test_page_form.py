"""What a visitor filled in is checked, and refused with one line."""

from __future__ import annotations

from typing import Any

import pytest

from cliper.errors import ClassListError, ImageError, SettingsError
from cliper.settings import Settings
from cliper.web.page.form import (
    AUTO,
    NONE,
    OWN,
    check_labelling,
    check_patches,
    read_background,
    read_classes,
    read_settings,
)
from cliper.web.page.limits import Limits

FEW = Limits(classes=3, letters=20)


def test_chips_are_classes_with_synonyms() -> None:
    named = read_classes(["dog", "person: man, woman"], FEW)
    assert [item.name for item in named] == ["dog", "person"]
    assert named[1].prompts == ("man", "woman")


@pytest.mark.parametrize(
    ("chips", "said"),
    [
        ([], "at least one class"),
        (None, "at least one class"),
        (["dog", "Dog"], "twice"),
        (["a", "b", "c", "d"], "at most 3 classes here, got 4"),
        (["a; b; c; d"], "at most 3 classes here, got 4"),
        (["x" * 21], "at most 20 letters"),
        ("dog", "list of texts"),
        ([1], "list of texts"),
        ({"a": 1}, "list of texts"),
        ([" "], "at least one class"),
        (["person:"], "person:"),
        (["\ud800"], "UTF-8"),
    ],
)
def test_classes_that_cannot_be_used(chips: Any, said: str) -> None:
    with pytest.raises(ClassListError, match=said) as caught:
        read_classes(chips, FEW)
    assert "\n" not in str(caught.value)


def test_background_is_one_of_three() -> None:
    assert read_background(AUTO, ["passed over"], FEW) == "auto"
    assert read_background(NONE, [], FEW) is None
    words = read_background(OWN, ["wall", "sky"], FEW)
    assert isinstance(words, list)
    assert [item.name for item in words] == ["wall", "sky"]
    for choice, chips, said in ((OWN, [], "background words"), ("else", [], "else"), (OWN, ["a"] * 4, "at most 3")):
        with pytest.raises(ClassListError, match=said):
            read_background(choice, chips, FEW)


def test_settings_change_only_what_the_page_offers() -> None:
    base = Settings(size=336, logit_scale=32)
    changed = read_settings(base, "preprint", 448.0, 0, FEW)
    assert changed == base.replace(recipe="preprint", size=448, refine_max_patches=FEW.patches)


def test_refiner_gets_the_patch_limit_of_the_page_unless_the_operator_set_one() -> None:
    limits = Limits(patches=900)
    assert read_settings(Settings(), "conference", 336, 0, limits).refine_max_patches == 900
    assert read_settings(Settings(refine_max_patches=7000), "conference", 336, 0, limits).refine_max_patches == 7000


@pytest.mark.parametrize(
    ("recipe", "size", "window"),
    [
        ("else", 336, 0),
        ("conference", 10_000, 0),
        ("conference", 8, 0),
        ("conference", float("nan"), 0),
        ("conference", 336.5, 0),
        ("conference", "336", 0),
        ("conference", None, 0),
        ("conference", 336, 1),
        ("conference", 336, 4000),
        ("conference", 336, -1),
    ],
)
def test_settings_out_of_the_pages_range(recipe: Any, size: Any, window: Any) -> None:
    with pytest.raises(SettingsError):
        read_settings(Settings(), recipe, size, window, Limits())


def test_what_the_operator_chose_may_be_asked_for() -> None:
    assert read_settings(Settings(size=1024), "conference", 1024, 0, Limits()).size == 1024


def test_a_long_picture_is_refused_by_what_it_would_take() -> None:
    check_patches(640, 480, 336, 14, Limits())
    with pytest.raises(ImageError, match="patches"):
        check_patches(30_000, 100, 336, 14, Limits())


def test_many_classes_of_many_pixels_are_refused() -> None:
    check_labelling(4000, 4000, 62, Limits())
    with pytest.raises(ClassListError, match="at most 1000 here, got 16 times 63"):
        check_labelling(4000, 4000, 63, Limits())


def test_synonyms_count() -> None:
    chips = [f"c{n}: a{n}, b{n}, d{n}" for n in range(100)]
    with pytest.raises(ClassListError, match="at most 200 texts, synonyms counted, got 300"):
        read_classes(chips, Limits())
    assert len(read_classes(chips[:60], Limits())) == 60
