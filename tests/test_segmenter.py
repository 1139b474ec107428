"""The public API on a tiny random CLIP, and on the bundled one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import cliper
from cliper.errors import CheckpointError, ClassListError, ImageError, ShapeError
from cliper.images import preprocess
from cliper.ops import assign_labels
from cliper.prompts import parse_classes, scene_background
from cliper.settings import Settings
from segmenter_helpers import CLASSES, assert_close, assert_same

# --- a result --------------------------------------------------------------------------------------------


def test_result_fields_have_their_shapes_and_types(tiny: Any, make_image: Callable[..., Image.Image]) -> None:
    result = tiny(make_image(90, 60), CLASSES)
    assert result.classes == ("dog", "green grass", "person")
    assert result.labels.shape == (60, 90)
    assert result.labels.dtype == np.int32
    assert result.scores.shape == (3, 60, 90)
    assert result.confidence.shape == (3,)
    assert result.maps.shape == (3, 4, 6)
    assert result.maps.dtype == np.float32
    assert np.array_equal(result.refined, result.maps)
    assert result.settings is tiny.settings
    assert (result.model, result.refiner) == (str(tiny.checkpoint.folder), None)
    assert result.image.size == (90, 60)
    # The fixture gives more than two labels, so that the comparisons below mean something.
    assert len(np.unique(result.labels)) > 2


def test_result_equals_the_public_parts_of_the_method_in_order(
    tiny: Any, make_image: Callable[..., Image.Image]
) -> None:
    """docs/method.md from the image to the labels."""
    image = make_image(80, 60)
    encoder = tiny.encoder
    pixels = preprocess(image, size=64, patch=16, mean=encoder.pixel_mean, std=encoder.pixel_std)
    assert pixels.shape == (3, 64, 80)
    classes = parse_classes(CLASSES)
    maps = tiny.class_maps(pixels, tiny.encode_text(CLASSES), tiny.encode_text(scene_background(classes)))
    refined = tiny.refine(torch.rand(3, 60, 80), maps)
    labels = assign_labels(refined, maps, (60, 80), background_threshold=0.3, score_threshold=0.05, normalize=True)
    result = tiny(image, CLASSES)
    assert np.array_equal(result.maps, maps.numpy())
    assert np.array_equal(result.labels, labels.numpy())


def test_image_as_path_text_array_or_rgba(tiny: Any, make_image: Callable[..., Image.Image], tmp_path: Path) -> None:
    image = make_image()
    image.save(tmp_path / "a.png")
    expected = tiny(image, CLASSES)
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), np.asarray(image), image.convert("RGBA")):
        assert_same(tiny(source, CLASSES), expected)


def test_classes_as_text_list_or_prompts(tiny: Any, photo: Path) -> None:
    expected = tiny(photo, CLASSES)
    assert_same(tiny(photo, ["dog", "green grass", "person: man, woman"]), expected)
    assert_same(tiny(photo, parse_classes(CLASSES)), expected)
    with pytest.raises(ClassListError):
        tiny(photo, "")
    with pytest.raises(ClassListError):
        tiny(photo, None)


# --- lists of images -------------------------------------------------------------------------------------


def test_list_of_mixed_sizes_gives_the_results_of_single_images(
    tiny: Any, make_image: Callable[..., Image.Image]
) -> None:
    sizes = [(96, 64)] * 9 + [(64, 96), (96, 64), (96, 64), (70, 70), (50, 33), (96, 64)]
    images = [make_image(*size, seed=seed) for seed, size in enumerate(sizes)]
    results = tiny(images, CLASSES)
    assert len(results) == len(images)
    for image, result in zip(images, results, strict=True):
        assert np.array_equal(np.asarray(result.image), np.asarray(image))
        # A matrix product of more rows may sum in another order; a scale of 30 before the softmax amplifies that.
        assert_close(result, tiny(image, CLASSES), 1e-5)
    assert not np.array_equal(results[0].maps, results[1].maps)


def test_lists_of_zero_and_one_images(tiny: Any, photo: Path) -> None:
    assert tiny([], CLASSES) == []
    (only,) = tiny([photo], CLASSES)
    assert_same(only, tiny(photo, CLASSES))


def test_unreadable_image_in_a_list_is_named(tiny: Any, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("not an image")
    with pytest.raises(ImageError, match=r"bad\.png"):
        tiny([photo, tmp_path / "bad.png"], CLASSES)


# --- background ------------------------------------------------------------------------------------------


def test_background_auto_none_or_names(tiny: Any, photo: Path) -> None:
    words = [item.name for item in scene_background(parse_classes("dog; sky"))]
    assert "sky" not in words
    auto = tiny(photo, "dog; sky")
    assert_same(auto, tiny(photo, "dog; sky", background="auto"))
    assert_same(auto, tiny(photo, "dog; sky", background=words))  # the fixture's settings drop no word
    none = tiny(photo, "dog; sky", background=None)
    assert_same(none, tiny(photo, "dog; sky", background=[]))
    assert_same(none, tiny(photo, "dog; sky", background="none"))
    named = tiny(photo, "dog; sky", background="wall; old wood")
    assert_same(named, tiny(photo, "dog; sky", background=["wall", "old wood"]))
    assert not np.array_equal(auto.maps, none.maps)
    assert not np.array_equal(auto.maps, named.maps)
    with pytest.raises(ClassListError, match=r"expected a background name list, got 0\.4"):
        tiny(photo, "dog; sky", background=0.4)


def test_all_scene_words_as_classes_equal_no_background(tiny: Any, photo: Path) -> None:
    words = [item.name for item in scene_background(parse_classes("zebra"))]
    assert_same(tiny(photo, words), tiny(photo, words, background=None))


# --- texts and maps --------------------------------------------------------------------------------------


def test_text_embeddings_are_cached_between_segmenters(clip_folder: Path, own_cache: Path) -> None:
    first = cliper.Segmenter.from_pretrained(clip_folder, device="cpu")
    expected = first.encode_text(CLASSES)
    assert expected.shape == (3, 24)
    assert expected.dtype == torch.float32
    assert (own_cache / "text-embeddings.sqlite").is_file()
    second = cliper.Segmenter.from_pretrained(clip_folder, device="cpu")
    second.encoder.encode_texts = lambda _: pytest.fail("the text was not cached")
    assert torch.equal(second.encode_text(CLASSES), expected)
    half = cliper.Segmenter.from_pretrained(clip_folder, device="cpu", dtype="bfloat16")
    assert not torch.equal(half.encode_text(CLASSES), expected)


def test_thousand_classes(tiny: Any, photo: Path, tmp_path: Path) -> None:
    result = tiny(photo, "; ".join(f"thing number {i}" for i in range(1000)))
    assert len(result.classes) == len(result.areas) == 1000
    assert result.labels.max() <= 1000
    result.save(tmp_path / "a.png")
    result.save_overlay(tmp_path / "b.png")
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png", photo.name}
    assert_same(tiny(photo, list(result.classes)), result)


def test_checkpoint_without_tokenizer_computes_class_maps_only(
    clip_without_tokenizer: Path, photo: Path, tiny: Any
) -> None:
    segmenter = cliper.Segmenter.from_pretrained(clip_without_tokenizer, device="cpu")
    pixels = torch.randn(3, 64, 96, generator=torch.Generator().manual_seed(0))
    foreground = tiny.encode_text(CLASSES)
    # Both checkpoints have the same weights.
    assert torch.equal(segmenter.class_maps(pixels, foreground), tiny.class_maps(pixels, foreground))
    for use in (lambda: segmenter.encode_text("dog"), lambda: segmenter(photo, "dog")):
        with pytest.raises(CheckpointError) as caught:
            use()
        message = str(caught.value)
        assert "tokenizer.json" in message
        assert str(clip_without_tokenizer) in message
        assert "\n" not in message


def test_class_maps_of_a_batch_equal_those_of_single_images(tiny: Any) -> None:
    pixels = torch.randn(3, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    foreground, background = tiny.encode_text(CLASSES), tiny.encode_text("wall; sky")
    kept = pixels.clone(), foreground.clone(), background.clone()
    maps = tiny.class_maps(pixels, foreground, background)
    assert maps.shape == (3, 3, 3, 4)
    assert maps.dtype == torch.float32
    for one, several in zip(pixels, maps, strict=True):
        torch.testing.assert_close(tiny.class_maps(one, foreground, background), several, atol=1e-5, rtol=0)
    assert all(torch.equal(a, b) for a, b in zip(kept, (pixels, foreground, background), strict=True))
    maps.add_(1)  # an ordinary tensor, which can be changed in place
    (maps * torch.ones((), requires_grad=True)).sum().backward()


@pytest.mark.parametrize(
    ("pixels", "foreground", "background", "words"),
    [
        ((3, 64), (2, 24), None, r"pixels: expected \[3, H, W\] or \[B, 3, H, W\], got \[3, 64\]"),
        ((3, 60, 64), (2, 24), None, "multiples of the patch size 16, got 60x64"),
        ((1, 64, 64), (2, 24), None, "pixels: expected"),
        ((3, 64, 64), (2, 23), None, "expected embeddings of width 24, got 23"),
        ((3, 64, 64), (2, 24), (3, 23), "background"),
        ((3, 64, 64), (0, 24), None, "foreground"),
        ((3, 64, 64), (24,), None, "foreground"),
        ((3, 0, 64), (2, 24), None, "multiples of the patch size"),
    ],
)
def test_tensors_of_wrong_shape_are_refused(
    tiny: Any, pixels: Any, foreground: Any, background: Any, words: str
) -> None:
    other = None if background is None else torch.ones(background)
    with pytest.raises(ShapeError, match=words):
        tiny.class_maps(torch.ones(pixels), torch.ones(foreground), other)


def test_refine_without_a_refiner_returns_the_maps_as_float32(tiny: Any) -> None:
    maps = torch.rand(2, 4, 5, dtype=torch.float64)
    refined = tiny.refine(torch.rand(3, 64, 64), maps)
    assert refined.dtype == torch.float32
    assert torch.equal(refined, maps.float())


def test_refined_maps_are_ordinary_tensors(tiny: Any) -> None:

    class Other:
        name = "other"

        def refine(self, images: Any, maps: Any, settings: Settings, seed: int = 0) -> list[torch.Tensor]:
            with torch.inference_mode():
                return [m + 1 for m in maps]

    with torch.inference_mode():
        maps = torch.rand(2, 4, 5)
    other = tiny.with_settings(tiny.settings)
    other.refiner = Other()
    for segmenter in (tiny, other, tiny.with_refiner("self")):
        refined = segmenter.refine(torch.rand(3, 64, 64), maps)
        refined += 1
        (refined * torch.ones((), requires_grad=True)).sum().backward()


# --- determinism -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"window": 112}, {"attention": "vanilla"}, {"recipe": "preprint"}], ids=str)
def test_same_call_gives_the_same_bits(tiny: Any, photo: Path, settings: dict[str, Any]) -> None:
    segmenter = tiny.with_settings(tiny.settings.replace(**settings))
    first = segmenter(photo, CLASSES)
    torch.rand(7)  # the results do not depend on the global generator
    assert_same(segmenter(photo, CLASSES), first)


def test_number_of_threads_changes_only_rounding(mini: Any) -> None:
    """Sums over 294 patches are split differently: 1e-7 in a cosine, times a scale of 32, in a softmax and a sum."""
    small = mini.with_settings(mini.settings.replace(size=224))
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(small(cliper.example_photo(), "horse; dog; person", "grass; sky"))
    finally:
        torch.set_num_threads(before)
    assert results[0].areas["horse"] > 0.1
    assert_close(*results, 1e-4)


def test_copy_of_a_checkpoint_gives_the_same_bits(
    clip_folder: Path, photo: Path, own_tiny: Any, tmp_path: Path
) -> None:
    copy = shutil.copytree(clip_folder, tmp_path / "copy")
    assert_same(cliper.Segmenter.from_pretrained(copy, device="cpu")(photo, CLASSES), own_tiny(photo, CLASSES))


# --- the bundled checkpoint ------------------------------------------------------------------------------


def test_bundled_checkpoint_finds_the_horses(mini: Any) -> None:
    result = mini(cliper.example_photo(), "horse; car")
    assert mini.checkpoint.name == "mini"
    assert mini.settings.logit_scale == 32
    assert 0.1 < result.areas["horse"] < 0.3
    assert result.areas["car"] < 0.01
    assert result.confidence[0] > 0.7
