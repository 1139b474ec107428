"""Segmentation: scores, areas, other thresholds, and its files."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cliper.errors import ClassListError, InputError, OutputError, SettingsError
from cliper.formats import read_label_png, read_npz
from cliper.formats.display import notebook_png
from cliper.ops import assign_labels, class_confidence, class_scores
from cliper.result import Segmentation
from cliper.settings import Settings

SETTINGS = Settings(score_threshold=0.3, background_threshold=0.25, normalize=False)


def make_result(classes: int = 3, size: tuple[int, int] = (20, 30), settings: Settings = SETTINGS) -> Segmentation:
    generator = torch.Generator().manual_seed(classes)
    maps = torch.rand(classes, 4, 6, generator=generator)
    refined = torch.rand(classes, 8, 8, generator=generator) ** 3
    maps[-1] *= 0.2
    refined[-1] *= 0.2  # the confidence of the last class is below the score threshold
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    names = [f"class {i}" for i in range(classes)]
    return Segmentation.from_maps(image, names, maps, refined, settings=settings, model="some")


def test_from_maps_assigns_labels_by_the_settings() -> None:
    result = make_result()
    maps, refined = torch.from_numpy(result.maps), torch.from_numpy(result.refined)
    labels = assign_labels(refined, maps, (20, 30), background_threshold=0.25, score_threshold=0.3, normalize=False)
    assert np.array_equal(result.labels, labels.numpy())
    assert result.labels.dtype == np.int32
    assert np.array_equal(result.confidence, class_confidence(refined, maps).numpy())
    assert (result.maps.dtype, result.refined.dtype) == (np.float32, np.float32)


def test_labels_are_the_maximum_of_the_scores() -> None:
    result = make_result()
    scores = result.scores
    assert scores.dtype == np.float32
    assert scores.shape == (3, 20, 30)
    assert not scores[2].any()
    assert result.confidence[2] <= SETTINGS.score_threshold < result.confidence[:2].min()
    expected = class_scores(
        torch.from_numpy(result.refined), torch.from_numpy(result.maps), (20, 30), score_threshold=0.3, normalize=False
    )
    assert np.array_equal(scores, expected.numpy())
    assert np.array_equal(result.labels, np.where(scores.max(0) < 0.25, 0, scores.argmax(0) + 1))


def test_areas_are_shares_of_pixels() -> None:
    result = make_result()
    assert list(result.areas) == ["class 0", "class 1", "class 2"]
    assert result.areas["class 0"] == pytest.approx((result.labels == 1).mean())
    assert result.areas["class 2"] == 0.0
    assert all(type(share) is float for share in result.areas.values())
    assert sum(result.areas.values()) == pytest.approx((result.labels > 0).mean())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"background_threshold": 0.6},
        {"background_threshold": 0.0},
        {"score_threshold": 0.0},
        {"score_threshold": 1.0},
        {"normalize": True},
        {"background_threshold": 0.5, "score_threshold": 0.1, "normalize": True},
    ],
)
def test_relabel_equals_a_result_of_those_settings(changes: dict[str, Any]) -> None:
    result = make_result()
    before = result.labels.copy()
    other = result.relabel(**changes)
    fresh = make_result(settings=SETTINGS.replace(**changes))
    assert np.array_equal(other.labels, fresh.labels)
    assert np.array_equal(other.scores, fresh.scores)
    assert other.labels.dtype == np.int32
    assert other.settings == fresh.settings
    assert other.areas == fresh.areas
    assert np.array_equal(other.relabel(background_threshold=0.25, score_threshold=0.3, normalize=False).labels, before)
    assert result.settings == SETTINGS
    assert np.array_equal(result.labels, before)


@pytest.mark.parametrize(
    "changes",
    [{"background_threshold": 1.5}, {"score_threshold": -0.1}, {"normalize": 1}, {"background_threshold": "auto"}],
)
def test_thresholds_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        make_result().relabel(**changes)


def test_suffix_selects_the_file(tmp_path: Path) -> None:
    result = make_result()
    assert result.save(tmp_path / "deep" / "a.png") == tmp_path / "deep" / "a.png"
    assert np.array_equal(read_label_png(tmp_path / "deep" / "a.png"), result.labels)
    result.save(str(tmp_path / "a.NPZ"))
    saved = read_npz(tmp_path / "a.NPZ")
    assert np.array_equal(saved.labels, result.labels)
    assert np.array_equal(saved.scores, result.scores)
    assert tuple(saved.classes) == result.classes
    assert np.array_equal(saved.confidence, result.confidence)
    for name in ("a.jpg", "a.jpeg", "a.webp"):
        with Image.open(result.save(tmp_path / name)) as image:
            assert image.format == {"a.webp": "WEBP"}.get(name, "JPEG")
            assert image.width >= 30
    result.save_overlay(tmp_path / "o.png", opacity=0.5, legend=False)
    with Image.open(tmp_path / "o.png") as image:
        assert image.size == (30, 20)
        assert np.array_equal(np.asarray(image), np.asarray(result.overlay(opacity=0.5, legend=False)))


@pytest.mark.parametrize("name", ["a.gif", "a", "a.txt", ".png.", ""])
def test_other_suffixes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"expected a name ending in \.png, \.npz, \.jpg, \.jpeg or \.webp"):
        make_result().save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_overlay_without_classes_is_the_image() -> None:
    result = make_result()
    blank = make_result(settings=SETTINGS.replace(score_threshold=1.0))
    assert not blank.labels.any()
    assert np.array_equal(np.asarray(blank.overlay(legend=False)), np.asarray(blank.image))
    assert not np.array_equal(np.asarray(result.overlay(legend=False)), np.asarray(result.image))
    with pytest.raises(InputError):
        result.overlay(opacity=2)


def test_result_is_frozen() -> None:
    result = make_result()
    with pytest.raises(AttributeError):
        result.model = "other"  # type: ignore[misc]
    assert result != make_result()
    assert result.refiner is None


def test_clean_removes_small_regions_and_fills_holes() -> None:
    labels = np.ones((20, 30), np.int32)
    labels[4, 4], labels[2, 2] = 0, 2
    result = replace(make_result(), labels=labels)
    cleaned = result.clean(min_area=2, fill_holes=True)
    assert (cleaned.labels == 1).all()
    assert cleaned.areas["class 0"] == 1.0
    assert result.labels[4, 4] == 0
    assert result.clean(smooth=1).labels[4, 4] == 1
    assert np.array_equal(result.clean().labels, labels)
    assert np.array_equal(cleaned.scores, result.scores)


# --- what a person meets ------------------------------------------------------------------------------------


def test_result_is_one_line_that_names_what_was_found() -> None:
    result = make_result()
    shares = result.areas
    assert repr(result) == f"Segmentation(30x20: class 0 {shares['class 0']:.1%}, class 1 {shares['class 1']:.1%})" or (
        repr(result) == f"Segmentation(30x20: class 1 {shares['class 1']:.1%}, class 0 {shares['class 0']:.1%})"
    )
    nothing = result.relabel(score_threshold=1.0)
    assert repr(nothing) == "Segmentation(30x20: nothing found)"


def test_array_of_a_result_is_its_label_map() -> None:
    result = make_result()
    assert np.array_equal(np.asarray(result), result.labels)
    assert np.asarray(result, dtype=np.uint8).dtype == np.uint8


def test_masks_boxes_and_regions_agree_with_the_labels() -> None:
    result = make_result()
    for label, name in enumerate(result.classes, start=1):
        mask = result.mask(name)
        assert np.array_equal(mask, result.labels == label)
        assert np.array_equal(result[name], mask)
        assert sum(region.area for region in result.regions(name)) == mask.sum()
        if mask.any():
            left, top, right, bottom = result.boxes[name]
            assert mask[top:bottom, left:right].sum() == mask.sum()
            assert mask[top].any()
            assert mask[bottom - 1].any()
            assert mask[:, left].any()
            assert mask[:, right - 1].any()
        else:
            assert name not in result.boxes


def test_unknown_class_is_named_with_the_nearest() -> None:
    with pytest.raises(ClassListError, match="did you mean 'class 0'"):
        make_result()["clas 0"]


def test_absent_class_says_why_and_what_turns_it_on() -> None:
    result = make_result()
    reason = result.absent["class 2"]
    assert list(result.absent) == ["class 2"]
    assert f"below the threshold 0.3: {result.confidence[2]:.2f}; sensitivity " in reason
    needed = float(reason.split("sensitivity ")[1].split()[0])
    threshold, _ = result.settings.replace(sensitivity=needed).thresholds()
    assert result.confidence[2] > threshold
    just_below, _ = result.settings.replace(sensitivity=needed - 0.01).thresholds()
    assert result.confidence[2] <= just_below


def test_sensitivity_moves_both_thresholds() -> None:
    result = make_result()
    moved = result.relabel(sensitivity=0.8)
    score, background = result.settings.replace(sensitivity=0.8).thresholds()
    plain = result.relabel(score_threshold=score, background_threshold=background)
    assert np.array_equal(moved.labels, plain.labels)
    assert (moved.labels > 0).sum() > (result.labels > 0).sum()
    assert not (result.relabel(sensitivity=0).labels > 0).any()


def test_notebook_shows_the_overlay_and_escapes_names() -> None:
    result = replace(make_result(), classes=("<b>", "class 1", "class 2"))
    with Image.open(io.BytesIO(result._repr_png_())) as shown:
        assert shown.format == "PNG"
    page = result._repr_html_()
    assert "data:image/png;base64," in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "below the threshold" in page


def test_large_result_is_reduced_in_a_notebook() -> None:
    with Image.open(io.BytesIO(notebook_png(make_result(size=(1200, 2400)), legend=False))) as shown:
        assert shown.size == (1024, 512)


def test_plot_draws_on_given_axes() -> None:
    pytest.importorskip("matplotlib").use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    assert make_result().plot(axes) is axes
    assert len(axes.get_legend().get_texts()) == 2
    plt.close(figure)
