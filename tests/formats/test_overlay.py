"""Overlays: the image with its regions in colour."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cliper.errors import ImageError, InputError, OutputError, ShapeError
from cliper.formats import draw_overlay, write_overlay
from cliper.formats.palette import overlay_palette

GREY = np.full((60, 80, 3), 100, dtype=np.uint8)


def halves() -> np.ndarray:
    """Left half background, right half label 1."""
    labels = np.zeros((60, 80), dtype=int)
    labels[:, 40:] = 1
    return labels


def test_background_is_unchanged_and_regions_are_blended() -> None:
    overlay = np.asarray(draw_overlay(GREY, halves(), ["dog"], opacity=0.5, legend=False))
    assert overlay.shape == GREY.shape
    assert overlay[30, 5].tolist() == [100, 100, 100]
    np.testing.assert_allclose(overlay[30, 75], (100 + overlay_palette(4)[1].astype(int)) / 2, atol=1)


def test_opacity_0_and_1() -> None:
    clear = np.asarray(draw_overlay(GREY, halves(), ["dog"], opacity=0, legend=False))
    solid = np.asarray(draw_overlay(GREY, halves(), ["dog"], opacity=1, legend=False))
    assert clear[30, 75].tolist() == [100, 100, 100]
    assert solid[30, 75].tolist() == overlay_palette(4)[1].tolist()


@pytest.mark.parametrize("shade", [0, 100, 255])
def test_borders_have_contrast_on_any_image(shade: int) -> None:
    image = np.full_like(GREY, shade)
    line = np.asarray(draw_overlay(image, halves(), ["dog"], legend=False))[30, 36:44].astype(int).sum(axis=1)
    assert line.max() - line.min() > 300


def test_tiny_images_have_no_borders() -> None:
    overlay = np.asarray(draw_overlay(GREY[:2, :2], [[0, 1], [0, 1]], ["dog"], opacity=1, legend=False))
    assert overlay[:, 1].tolist() == [overlay_palette(4)[1].tolist()] * 2
    assert overlay[:, 0].tolist() == [[100] * 3] * 2


def test_arguments_are_not_changed() -> None:
    image, labels = Image.fromarray(GREY), halves()
    draw_overlay(image, labels, ["dog"])
    np.testing.assert_array_equal(np.asarray(image), GREY)
    np.testing.assert_array_equal(labels, halves())


def test_arguments_that_do_not_fit_are_refused() -> None:
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
def test_suffix_selects_the_file_format(tmp_path: Path, name: str, kind: str) -> None:
    overlay = draw_overlay(GREY, halves(), ["dog"], legend=False)
    write_overlay(tmp_path / name, overlay)
    with Image.open(tmp_path / name) as stored:
        assert stored.format == kind
        difference = np.asarray(stored.convert("RGB"), int) - np.asarray(overlay, int)
    # Of JPEG and WebP at quality 92 and 90.
    assert np.abs(difference).mean() < 4


def test_other_suffixes_and_images_too_large_for_the_format_are_refused(tmp_path: Path) -> None:
    for name in ("a.gif", "a", ".png"):
        with pytest.raises(OutputError, match=r"\.png, \.jpg"):
            write_overlay(tmp_path / name, Image.new("RGB", (2, 2)))
    with pytest.raises(OutputError, match=r"16383 pixels.*WEBP.*png"):
        write_overlay(tmp_path / "a.webp", Image.new("RGB", (17_000, 1)))
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as stream:
            stream.write(data[:4])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="disk is full"):
        write_overlay(tmp_path / "new" / "a.png", Image.new("RGB", (2, 2)))
    assert list(tmp_path.iterdir()) == []
