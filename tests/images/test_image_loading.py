"""``load_image``: upright 8-bit RGB images from every source and mode, and one-line errors."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_helpers import photo, refusal
from PIL import Image

from cliper.images import load_image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def pixels(source: Any) -> np.ndarray:
    return np.asarray(load_image(source))


# --- sources ---------------------------------------------------------------------------------------------


def test_path_text_pil_and_array_agree(tmp_path: Path) -> None:
    image = photo()
    image.save(tmp_path / "a.png")
    expected = np.asarray(image)
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), image, expected):
        loaded = load_image(source)
        assert loaded.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(loaded), expected)


def test_arrays_grey_rgb_rgba_and_not_contiguous() -> None:
    grey = np.array([[0, 128, 255]], dtype=np.uint8)
    np.testing.assert_array_equal(pixels(grey), np.repeat(grey[:, :, None], 3, axis=2))
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], dtype=np.uint8)
    np.testing.assert_array_equal(pixels(rgba), [[[10, 20, 30], [255, 255, 255]]])
    image = np.asarray(photo())
    np.testing.assert_array_equal(pixels(image[::2, ::-1]), image[::2, ::-1])


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 8, 8), np.uint8), "transpose"),
        (np.zeros((2, 8, 8, 3), np.uint8), "2x8x8x3"),
        (np.zeros((8, 8, 1), np.uint8), "HxWx3"),
        (np.zeros((8, 8, 3), np.float32), "float32"),
        (np.zeros((8, 8, 3), np.uint16), "uint16"),
        (np.zeros((0, 8), np.uint8), "8x0"),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray, words: str) -> None:
    assert words in refusal(array)


@pytest.mark.parametrize("source", [7, None, b"bytes", [[0]], torch.zeros(3, 4, 4)])
def test_other_types_are_refused(source: Any) -> None:
    assert type(source).__name__ in refusal(source)


def test_result_shares_nothing_with_the_source() -> None:
    image = photo()
    array = np.array(image)
    for source in (image, array):
        load_image(source).paste((1, 2, 3), (0, 0, 64, 48))
    assert image.getpixel((0, 0)) == tuple(array[0, 0]) == tuple(np.asarray(photo())[0, 0])


@pytest.mark.parametrize(("mode", "copies"), [("RGB", ["copy"]), ("RGBA", [])])
def test_pixels_of_a_file_are_copied_at_most_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, copies: list[str]
) -> None:
    """An image of 128 megapixels takes 0.5 GB, and each copy as much. RGBA is pasted on white."""
    photo().convert(mode).save(tmp_path / "a.png")
    called: list[str] = []
    for method in ("copy", "convert"):
        original = getattr(Image.Image, method)
        monkeypatch.setattr(
            Image.Image, method, lambda *a, m=method, o=original, **k: (called.append(m), o(*a, **k))[1]
        )
    loaded = load_image(tmp_path / "a.png")
    assert called == copies
    assert type(loaded) is Image.Image
    np.testing.assert_array_equal(np.asarray(loaded), np.asarray(photo()))


def test_empty_pil_image_is_refused() -> None:
    assert "0x5" in refusal(Image.new("RGB", (0, 5)))


# --- modes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "suffix"), [(np.uint16, "png"), (np.uint16, "tif"), (np.int32, "tif")])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, dtype: type, suffix: str) -> None:
    values = np.array([[0, 257, 128 * 257, 65535]], dtype=dtype)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    assert pixels(tmp_path / f"a.{suffix}")[0, :, 0].tolist() == [0, 1, 128, 255]
    assert pixels(Image.fromarray(values))[0, :, 2].tolist() == [0, 1, 128, 255]


def test_more_than_16_bit_is_refused() -> None:
    assert "16 bit" in refusal(Image.fromarray(np.array([[70_000]], dtype=np.int32)))
    assert "-1" in refusal(Image.fromarray(np.array([[-1]], dtype=np.int32)))


@pytest.mark.parametrize(
    ("values", "expected"), [([0.0, 0.5, 1.0], [0, 128, 255]), ([0.0, 100.0, 255.0], [0, 100, 255])]
)
def test_float_tiff(tmp_path: Path, values: list[float], expected: list[int]) -> None:
    Image.fromarray(np.array([values], dtype=np.float32)).save(tmp_path / "a.tif")
    assert pixels(tmp_path / "a.tif")[0, :, 0].tolist() == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 256.0])
def test_other_floats_are_refused(tmp_path: Path, value: float) -> None:
    Image.fromarray(np.array([[0.0, value]], dtype=np.float32)).save(tmp_path / "a.tif")
    assert "float image" in refusal(tmp_path / "a.tif")


def test_transparent_palette_is_blended_with_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=1)
    image.save(tmp_path / "bytes.png", transparency=bytes([255, 0]))
    image.save(tmp_path / "a.gif", transparency=1)
    for name in ("a.png", "bytes.png", "a.gif"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert pixels(tmp_path / name).tolist() == [[list(RED), list(WHITE)]]


def test_alpha_is_blended_with_white(tmp_path: Path) -> None:
    rgba = Image.new("RGBA", (3, 1), (255, 0, 0, 0))
    rgba.putpixel((1, 0), (255, 0, 0, 255))
    rgba.putpixel((2, 0), (0, 0, 0, 128))
    rgba.save(tmp_path / "rgba.png")
    assert pixels(tmp_path / "rgba.png").tolist() == [[[255] * 3, list(RED), [127] * 3]]
    grey = Image.new("LA", (2, 1), (0, 0))
    grey.putpixel((1, 0), (90, 255))
    grey.save(tmp_path / "la.png")
    assert pixels(tmp_path / "la.png").tolist() == [[[255] * 3, [90] * 3]]
    assert pixels(rgba.convert("RGBa"))[0, 0].tolist() == list(WHITE)
    Image.new("RGB", (1, 1), RED).save(tmp_path / "trns.png", transparency=RED)
    assert pixels(tmp_path / "trns.png")[0, 0].tolist() == list(WHITE)


def test_one_bit(tmp_path: Path) -> None:
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").tolist() == [[[0] * 3, [255] * 3]]


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "L", "RGB"])
def test_jpeg_colours(tmp_path: Path, mode: str) -> None:
    # Pillow stores CMYK as Adobe does: inverted.
    Image.new("RGB", (32, 32), (200, 40, 60)).convert(mode).save(tmp_path / "a.jpg", quality=100)
    expected = (97, 97, 97) if mode == "L" else (200, 40, 60)
    with Image.open(tmp_path / "a.jpg") as stored:
        assert stored.mode == ("RGB" if mode == "YCbCr" else mode)
    np.testing.assert_allclose(pixels(tmp_path / "a.jpg")[16, 16], expected, atol=8)


def test_lab_and_hsv() -> None:
    lab = Image.new("LAB", (2, 2), (255, 128, 128))
    np.testing.assert_allclose(pixels(lab)[0, 0], WHITE, atol=3)
    assert pixels(Image.new("HSV", (2, 2), (0, 255, 255)))[0, 0].tolist() == list(RED)


def test_mode_without_conversion_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: Any, **__: Any) -> None:
        raise ValueError("conversion not supported")

    monkeypatch.setattr(Image.Image, "convert", no)
    assert "CMYK" in (message := refusal(Image.new("CMYK", (2, 2))))
    assert "convert it to RGB" in message


# --- orientation and frames ------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    """The stored image is transposed by the inverse, and the loaded one is upright."""
    upright = Image.new("RGB", (32, 16), WHITE)
    upright.paste(RED, (0, 0, 16, 8))
    upright.paste(BLUE, (16, 8, 32, 16))
    turn = Image.Transpose
    undo = {
        1: None,
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_90,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_270,
    }[orientation]
    stored = upright if undo is None else upright.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for suffix, options in [("jpg", {"quality": 100, "subsampling": 0}), ("png", {}), ("tif", {})]:
        path = tmp_path / f"a.{suffix}"
        stored.save(path, exif=exif, **options)
        loaded = load_image(path)
        np.testing.assert_allclose(np.asarray(loaded, int), np.asarray(upright, int), atol=6)
        # A second load does not transpose it again, and an open PIL image gives the same.
        np.testing.assert_array_equal(pixels(loaded), np.asarray(loaded))
        with Image.open(path) as opened:
            np.testing.assert_array_equal(pixels(opened), np.asarray(loaded))


def test_broken_exif_is_ignored(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.png", exif=b"Exif\0\0not a directory at all")
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), np.asarray(photo()))


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_first_frame_of_an_animation(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], duration=50, **options)
    with Image.open(tmp_path / f"a.{suffix}") as opened:
        assert opened.n_frames == 3
    assert (pixels(tmp_path / f"a.{suffix}") == RED).all()


def test_images_are_importable_without_torch() -> None:
    code = "import sys, cliper.images, cliper.formats; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
