"""The legend of an overlay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliper.formats import draw_overlay, legend
from cliper.formats.legend import MAX_ENTRIES, LegendEntry, add_legend

GREY = np.full((60, 80, 3), 100, dtype=np.uint8)


def drawn_texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collects every text that is drawn from now on."""
    texts: list[str] = []
    real = legend.ImageDraw.ImageDraw.text

    def record(self: Any, xy: Any, text: str, *rest: Any, **options: Any) -> Any:
        texts.append(text)
        return real(self, xy, text, *rest, **options)

    monkeypatch.setattr(legend.ImageDraw.ImageDraw, "text", record)
    return texts


def test_classes_that_occur_are_listed_by_area_with_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = drawn_texts(monkeypatch)
    labels = np.zeros((100, 100), dtype=int)
    labels[:30], labels[30:40], labels[99, 0] = 3, 1, 4
    draw_overlay(np.zeros((100, 100, 3), np.uint8), labels, ["dog", "never", "grass", "ant"])
    assert texts[::2] == ["grass", "dog", "ant", "background"]
    assert texts[1::2] == ["30.0 %", "10.0 %", "<0.1 %", "60.0 %"]


def test_background_that_does_not_occur_is_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = drawn_texts(monkeypatch)
    draw_overlay(GREY, np.ones((60, 80), int), ["dog"])
    assert texts == ["dog", "100.0 %"]


@pytest.mark.parametrize("size", [(640, 426), (426, 640), (1, 1), (2000, 2), (2, 2000), (40, 30)])
def test_image_stays_unchanged_at_the_top_left(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (1, 2, 3))
    whole = add_legend(image, [LegendEntry(f"class {i}", 0.1, (9, 8, 7)) for i in range(7)])
    assert whole.width >= size[0]
    assert whole.height >= size[1]
    assert whole.width == size[0] or whole.height == size[1] or max(size) < 200
    np.testing.assert_array_equal(np.asarray(whole.crop((0, 0, *size))), np.asarray(image))
    assert (np.asarray(whole) == (9, 8, 7)).all(axis=2).any()


def test_long_names_stay_inside_the_panel() -> None:
    names = ["i", "W" * 500, "a b", "middle"]
    whole = add_legend(Image.new("RGB", (300, 200)), [LegendEntry(name, 0.25, (200, 0, 0)) for name in names])
    panel = np.asarray(whole)[200:]
    assert (panel[:, -4:] == 255).all()
    assert (panel[-4:] == 255).all()
    assert (panel[:, :4] == 255).all()


def test_long_names_end_with_an_ellipsis(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = drawn_texts(monkeypatch)
    add_legend(Image.new("RGB", (300, 200)), [LegendEntry("person with clothes " * 500, 1.0, (0, 0, 0))])
    assert texts[0].startswith("person with clothes")
    assert texts[0].endswith("…")
    assert len(texts[0]) < 60


def test_font_grows_with_the_image() -> None:
    entries = [LegendEntry("dog", 1.0, (0, 0, 0))]
    small = add_legend(Image.new("RGB", (500, 375)), entries)
    large = add_legend(Image.new("RGB", (2000, 1500)), entries)
    assert large.height - 1500 > 3 * (small.height - 375)


def test_more_than_60_classes_are_summed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = drawn_texts(monkeypatch)
    labels = (np.arange(200 * 200) % 1000 + 1).reshape(200, 200)
    whole = draw_overlay(np.zeros((200, 200, 3), np.uint8), labels, [f"class {i}" for i in range(1000)])
    assert len(texts) == 2 * MAX_ENTRIES
    assert texts[-2:] == ["and 941 more", "94.1 %"]
    assert max(whole.size) < 2000


@pytest.mark.parametrize("name", ["трава", "狗", "عشب", "🐕 dog", "\ud800", "a\nb\tc", "\x07", "", " ", "e\u0301"])
def test_name_of_any_characters_is_drawn(name: str) -> None:
    assert draw_overlay(GREY, np.ones((60, 80), int), [name]).size[0] >= 80
