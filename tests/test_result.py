"""What a segmentation says of itself, and what it becomes on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cliper.errors import InputError, OutputError, SettingsError
from cliper.formats import read_label_png, read_npz
from cliper.ops import assign_labels, class_confidence, class_scores
from cliper.result import Segmentation
from cliper.settings import Settings

SETTINGS = Settings(score=0.3, background=0.25, normalize=False)


def made(classes: int = 3, size: tuple[int, int] = (20, 30), settings: Settings = SETTINGS) -> Segmentation:
    generator = torch.Generator().manual_seed(classes)
    maps = torch.rand(classes, 4, 6, generator=generator)
    refined = torch.rand(classes, 8, 8, generator=generator) ** 3
    maps[-1] *= 0.2
    refined[-1] *= 0.2  # the last class is off
    labels = assign_labels(
        refined,
        maps,
        size,
        background=settings.background,
        score=settings.score,
        normalize=settings.normalize,
    )
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    return Segmentation(
        image=picture,
        classes=tuple(f"class {i}" for i in range(classes)),
        labels=labels.numpy().astype(np.int32),
        confidence=class_confidence(refined, maps).numpy(),
        maps=maps.numpy(),
        refined=refined.numpy(),
        settings=settings,
        model="some",
    )


def test_scores_are_what_labels_were_chosen_by() -> None:
    result = made()
    scores = result.scores
    assert scores.dtype == np.float32
    assert scores.shape == (3, 20, 30)
    assert not scores[2].any()
    assert result.confidence[2] <= SETTINGS.score < result.confidence[:2].min()
    expected = class_scores(
        torch.from_numpy(result.refined), torch.from_numpy(result.maps), (20, 30), score=0.3, normalize=False
    )
    assert np.array_equal(scores, expected.numpy())
    assert np.array_equal(result.labels, np.where(scores.max(0) < 0.25, 0, scores.argmax(0) + 1))


def test_areas_are_shares_of_pixels() -> None:
    result = made()
    assert list(result.areas) == ["class 0", "class 1", "class 2"]
    assert result.areas["class 0"] == pytest.approx((result.labels == 1).mean())
    assert result.areas["class 2"] == 0.0
    assert all(type(share) is float for share in result.areas.values())
    assert sum(result.areas.values()) == pytest.approx((result.labels > 0).mean())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"background": 0.6},
        {"background": 0.0},
        {"score": 0.0},
        {"score": 1.0},
        {"normalize": True},
        {"background": 0.5, "score": 0.1, "normalize": True},
    ],
)
def test_relabelled_is_as_if_made_so(changes: dict[str, Any]) -> None:
    result = made()
    before = result.labels.copy()
    other = result.relabel(**changes)
    fresh = made(settings=SETTINGS.replace(**changes))
    assert np.array_equal(other.labels, fresh.labels)
    assert np.array_equal(other.scores, fresh.scores)
    assert other.labels.dtype == np.int32
    assert other.settings == fresh.settings
    assert other.areas == fresh.areas
    assert np.array_equal(other.relabel(background=0.25, score=0.3, normalize=False).labels, before)
    assert result.settings == SETTINGS
    assert np.array_equal(result.labels, before)


@pytest.mark.parametrize("changes", [{"background": 1.5}, {"score": -0.1}, {"normalize": 1}, {"background": "auto"}])
def test_thresholds_out_of_range(changes: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        made().relabel(**changes)


def test_files_by_suffix(tmp_path: Path) -> None:
    result = made()
    assert result.save(tmp_path / "deep" / "a.png") == tmp_path / "deep" / "a.png"
    assert np.array_equal(read_label_png(tmp_path / "deep" / "a.png"), result.labels)
    result.save(str(tmp_path / "a.NPZ"))
    saved = read_npz(tmp_path / "a.NPZ")
    assert np.array_equal(saved.labels, result.labels)
    assert np.array_equal(saved.scores, result.scores)
    assert tuple(saved.classes) == result.classes
    assert np.array_equal(saved.confidence, result.confidence)
    for name in ("a.jpg", "a.jpeg", "a.webp"):
        with Image.open(result.save(tmp_path / name)) as picture:
            assert picture.format == {"a.webp": "WEBP"}.get(name, "JPEG")
            assert picture.width >= 30
    result.save_overlay(tmp_path / "o.png", opacity=0.5, legend=False)
    with Image.open(tmp_path / "o.png") as picture:
        assert picture.size == (30, 20)
        assert np.array_equal(np.asarray(picture), np.asarray(result.overlay(opacity=0.5, legend=False)))


@pytest.mark.parametrize("name", ["a.gif", "a", "a.txt", ".png.", ""])
def test_other_suffixes_write_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"expected a name ending in \.png, \.npz, \.jpg, \.jpeg or \.webp"):
        made().save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_an_overlay_shows_the_picture_where_nothing_was_found() -> None:
    result = made()
    blank = made(settings=SETTINGS.replace(score=1.0))
    assert not blank.labels.any()
    assert np.array_equal(np.asarray(blank.overlay(legend=False)), np.asarray(blank.image))
    assert not np.array_equal(np.asarray(result.overlay(legend=False)), np.asarray(result.image))
    with pytest.raises(InputError):
        result.overlay(opacity=2)


def test_it_is_frozen() -> None:
    result = made()
    with pytest.raises(AttributeError):
        result.model = "other"  # type: ignore[misc]
    assert result != made()
    assert result.refiner is None
