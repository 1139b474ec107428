"""The picture with its regions in colour."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliper.errors import ImageError, InputError, OutputError, ShapeError
from cliper.formats import draw_overlay, legend, voc_palette, write_overlay
from cliper.formats.legend import MAX_ENTRIES, LegendEntry, add_legend

GREY = np.full((60, 80, 3), 100, dtype=np.uint8)


def halves() -> np.ndarray:
    """Left half background, right half label 1."""
    labels = np.zeros((60, 80), dtype=int)
    labels[:, 40:] = 1
    return labels


def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that is drawn from now on."""
    texts: list[str] = []
    real = legend.ImageDraw.ImageDraw.text

    def note(self: Any, xy: Any, text: str, *rest: Any, **options: Any) -> Any:
        texts.append(text)
        return real(self, xy, text, *rest, **options)

    monkeypatch.setattr(legend.ImageDraw.ImageDraw, "text", note)
    return texts


def test_background_stays_and_regions_are_blended() -> None:
    overlay = np.asarray(draw_overlay(GREY, halves(), ["dog"], opacity=0.5, legend=False))
    assert overlay.shape == GREY.shape
    assert overlay[30, 5].tolist() == [100, 100, 100]
    np.testing.assert_allclose(overlay[30, 75], (100 + voc_palette()[1].astype(int)) / 2, atol=1)


def test_opacity_ends() -> None:
    clear = np.asarray(draw_overlay(GREY, halves(), ["dog"], opacity=0, legend=False))
    solid = np.asarray(draw_overlay(GREY, halves(), ["dog"], opacity=1, legend=False))
    assert clear[30, 75].tolist() == [100, 100, 100]
    assert solid[30, 75].tolist() == voc_palette()[1].tolist()


@pytest.mark.parametrize("shade", [0, 100, 255])
def test_borders_stand_out_on_any_picture(shade: int) -> None:
    picture = np.full_like(GREY, shade)
    line = np.asarray(draw_overlay(picture, halves(), ["dog"], legend=False))[30, 36:44].astype(int).sum(axis=1)
    assert line.max() - line.min() > 300


def test_tiny_pictures_have_no_borders() -> None:
    overlay = np.asarray(draw_overlay(GREY[:2, :2], [[0, 1], [0, 1]], ["dog"], opacity=1, legend=False))
    assert overlay[:, 1].tolist() == [voc_palette()[1].tolist()] * 2
    assert overlay[:, 0].tolist() == [[100] * 3] * 2


def test_source_is_not_changed() -> None:
    image, labels = Image.fromarray(GREY), halves()
    draw_overlay(image, labels, ["dog"])
    np.testing.assert_array_equal(np.asarray(image), GREY)
    np.testing.assert_array_equal(labels, halves())


def test_legend_lists_what_occurs_by_area_with_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = drawn(monkeypatch)
    labels = np.zeros((100, 100), dtype=int)
    labels[:30], labels[30:40], labels[99, 0] = 3, 1, 4
    picture = np.zeros((100, 100, 3), np.uint8)
    draw_overlay(picture, labels, ["dog", "never", "grass", "ant"], background_name="other")
    assert texts[::2] == ["grass", "dog", "ant", "other"]
    assert texts[1::2] == ["30.0 %", "10.0 %", "<0.1 %", "60.0 %"]


def test_no_background_no_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = drawn(monkeypatch)
    draw_overlay(GREY, np.ones((60, 80), int), ["dog"])
    assert texts == ["dog", "100.0 %"]


@pytest.mark.parametrize("size", [(640, 426), (426, 640), (1, 1), (2000, 2), (2, 2000), (40, 30)])
def test_picture_stays_at_the_top_left_whatever_its_shape(size: tuple[int, int]) -> None:
    picture = Image.new("RGB", size, (1, 2, 3))
    whole = add_legend(picture, [LegendEntry(f"class {i}", 0.1, (9, 8, 7)) for i in range(7)])
    assert whole.width >= size[0]
    assert whole.height >= size[1]
    assert whole.width == size[0] or whole.height == size[1] or max(size) < 200
    np.testing.assert_array_equal(np.asarray(whole.crop((0, 0, *size))), np.asarray(picture))
    assert (np.asarray(whole) == (9, 8, 7)).all(axis=2).any()


def test_legend_stays_inside_the_panel() -> None:
    names = ["i", "W" * 500, "a b", "middle"]
    whole = add_legend(Image.new("RGB", (300, 200)), [LegendEntry(name, 0.25, (200, 0, 0)) for name in names])
    panel = np.asarray(whole)[200:]
    assert (panel[:, -4:] == 255).all()
    assert (panel[-4:] == 255).all()
    assert (panel[:, :4] == 255).all()


def test_long_names_end_with_an_ellipsis(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = drawn(monkeypatch)
    add_legend(Image.new("RGB", (300, 200)), [LegendEntry("person with clothes " * 500, 1.0, (0, 0, 0))])
    assert texts[0].startswith("person with clothes")
    assert texts[0].endswith("…")
    assert len(texts[0]) < 60


@pytest.mark.parametrize("name", ["трава", "狗", "عشب", "🐕 dog", "\ud800", "a\nb\tc", "\x07", "", " ", "e\u0301"])
def test_no_name_is_too_strange(name: str) -> None:
    assert draw_overlay(GREY, halves(), [name]).size[0] >= 80


def test_a_thousand_classes_are_summed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = drawn(monkeypatch)
    labels = (np.arange(200 * 200) % 1000 + 1).reshape(200, 200)
    whole = draw_overlay(np.zeros((200, 200, 3), np.uint8), labels, [f"class {i}" for i in range(1000)])
    assert len(texts) == 2 * MAX_ENTRIES
    assert texts[-2:] == ["and 941 more", "94.1 %"]
    assert max(whole.size) < 2000


def test_type_grows_with_the_picture() -> None:
    entries = [LegendEntry("dog", 1.0, (0, 0, 0))]
    small = add_legend(Image.new("RGB", (500, 375)), entries)
    large = add_legend(Image.new("RGB", (2000, 1500)), entries)
    assert large.height - 1500 > 3 * (small.height - 375)


def test_misfits_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"60x80, got 80x60.*resize"):
        draw_overlay(GREY, np.zeros((80, 60), int), ["dog"])
    with pytest.raises(InputError, match=r"up to 1.*got 255"):
        draw_overlay(GREY, np.full((60, 80), 255), ["dog"])
    with pytest.raises(InputError, match=r"opacity.*1\.5"):
        draw_overlay(GREY, halves(), ["dog"], opacity=1.5)
    with pytest.raises(ImageError, match="nothing there"):
        draw_overlay("no.png", halves(), ["dog"])


@pytest.mark.parametrize(
    ("name", "kind"), [("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.JPEG", "JPEG"), ("new/a.webp", "WEBP")]
)
def test_written_as_the_suffix_says(tmp_path: Path, name: str, kind: str) -> None:
    write_overlay(tmp_path / name, GREY, halves(), ["dog"], legend=False)
    with Image.open(tmp_path / name) as stored:
        assert stored.format == kind
        difference = np.asarray(stored.convert("RGB"), int) - np.asarray(
            draw_overlay(GREY, halves(), ["dog"], legend=False), int
        )
    assert np.abs(difference).mean() < 4


def test_other_suffixes_and_too_large_for_the_format(tmp_path: Path) -> None:
    for name in ("a.gif", "a", ".png"):
        with pytest.raises(OutputError, match=r"\.png, \.jpg"):
            write_overlay(tmp_path / name, GREY, halves(), ["dog"])
    strip = np.zeros((1, 17_000, 3), np.uint8)
    with pytest.raises(OutputError, match=r"16383 pixels.*WEBP.*png"):
        write_overlay(tmp_path / "a.webp", strip, np.zeros((1, 17_000), int), [], legend=False)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Image.Image, path: Path, **__: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OutputError, match="disk is full"):
        write_overlay(tmp_path / "new" / "a.png", GREY, halves(), ["dog"])
    assert list(tmp_path.iterdir()) == []
