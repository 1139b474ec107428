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
from cliper.errors import (
    CheckpointError,
    ClassListError,
    CliperError,
    ImageError,
    ResourceError,
    SettingsError,
    ShapeError,
)
from cliper.images import preprocess
from cliper.ops import assign_labels
from cliper.prompts import parse_classes, scene_background
from cliper.settings import Settings, load_preset

CLASSES = "dog; green grass; person: man, woman"


def same(a: cliper.Segmentation, b: cliper.Segmentation) -> None:
    """Equal to the last bit."""
    assert a.classes == b.classes
    for name in ("labels", "confidence", "maps", "refined"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert np.array_equal(np.asarray(a.image), np.asarray(b.image))


def close(a: cliper.Segmentation, b: cliper.Segmentation, tolerance: float) -> None:
    """Maps within a tolerance; labels may differ where two values are that close, which is on few pixels."""
    assert a.classes == b.classes
    assert np.abs(a.maps - b.maps).max() <= tolerance
    assert np.abs(a.confidence - b.confidence).max() <= tolerance
    assert (a.labels != b.labels).mean() <= 0.001


# --- a result --------------------------------------------------------------------------------------------


def test_a_result_says_what_it_is(tiny: Any, make_picture: Callable[..., Image.Image]) -> None:
    result = tiny(make_picture(90, 60), CLASSES)
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
    # The fixture is made so that there is something to tell apart.
    assert len(np.unique(result.labels)) > 2


def test_a_result_is_the_methods_parts_put_together(tiny: Any, make_picture: Callable[..., Image.Image]) -> None:
    """docs/method.md from the picture to the labels, by the public parts."""
    picture = make_picture(80, 60)
    encoder = tiny.encoder
    pixels = preprocess(picture, size=64, patch=16, mean=encoder.pixel_mean, std=encoder.pixel_std)
    assert pixels.shape == (3, 64, 80)
    classes = parse_classes(CLASSES)
    maps = tiny.class_maps(pixels, tiny.encode_text(CLASSES), tiny.encode_text(scene_background(classes)))
    refined = tiny.refine(torch.rand(3, 60, 80), maps)
    labels = assign_labels(refined, maps, (60, 80), background_threshold=0.3, score_threshold=0.05, normalize=True)
    result = tiny(picture, CLASSES)
    assert np.array_equal(result.maps, maps.numpy())
    assert np.array_equal(result.labels, labels.numpy())


def test_pictures_of_every_kind(tiny: Any, make_picture: Callable[..., Image.Image], tmp_path: Path) -> None:
    picture = make_picture()
    picture.save(tmp_path / "a.png")
    expected = tiny(picture, CLASSES)
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), np.asarray(picture), picture.convert("RGBA")):
        same(tiny(source, CLASSES), expected)


def test_classes_of_every_kind(tiny: Any, photo: Path) -> None:
    expected = tiny(photo, CLASSES)
    same(tiny(photo, ["dog", "green grass", "person: man, woman"]), expected)
    same(tiny(photo, parse_classes(CLASSES)), expected)
    with pytest.raises(ClassListError):
        tiny(photo, "")
    with pytest.raises(ClassListError):
        tiny(photo, None)


# --- lists of pictures -----------------------------------------------------------------------------------


def test_a_list_is_what_its_pictures_are_alone(tiny: Any, make_picture: Callable[..., Image.Image]) -> None:
    """In order, of mixed sizes, more than a batch of one size."""
    sizes = [(96, 64)] * 9 + [(64, 96), (96, 64), (96, 64), (70, 70), (50, 33), (96, 64)]
    pictures = [make_picture(*size, seed=seed) for seed, size in enumerate(sizes)]
    results = tiny(pictures, CLASSES)
    assert len(results) == len(pictures)
    for picture, result in zip(pictures, results, strict=True):
        assert np.array_equal(np.asarray(result.image), np.asarray(picture))
        # A product of more rows may be summed in another order; times a scale of 30 before the softmax.
        close(result, tiny(picture, CLASSES), 1e-5)
    assert not np.array_equal(results[0].maps, results[1].maps)


def test_lists_of_none_and_of_one(tiny: Any, photo: Path) -> None:
    assert tiny([], CLASSES) == []
    (only,) = tiny([photo], CLASSES)
    same(only, tiny(photo, CLASSES))


def test_a_bad_picture_in_a_list(tiny: Any, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(ImageError, match=r"bad\.png"):
        tiny([photo, tmp_path / "bad.png"], CLASSES)


# --- settings --------------------------------------------------------------------------------------------


def test_other_settings_for_the_same_models(own_tiny: Any, photo: Path, clip_folder: Path) -> None:
    settings = own_tiny.settings.replace(size=96, logit_scale=10, select_layer=0, attention="k-k", fuse_features=False)
    other = own_tiny.with_settings(settings)
    assert other.encoder is own_tiny.encoder
    assert other.settings == settings
    assert own_tiny.settings.size == 64
    fresh = cliper.Segmenter.from_pretrained(clip_folder, settings=settings, device="cpu")
    same(other(photo, CLASSES), fresh(photo, CLASSES))
    assert other(photo, CLASSES).maps.shape == (3, 6, 9)


CHANGES: list[dict[str, Any]] = [
    {"recipe": "preprint"},
    {"recipe": "preprint-h"},
    {"size": 96},
    {"logit_scale": 10},
    {"map_threshold": 0.9},
    {"select_layer": 0},
    {"window": 112},
    *({"attention": name} for name in ("vanilla", "q-q", "k-k", "v-v", "identity")),
    {"fuse_features": False},
    {"score_threshold": 0.9},
    {"background_threshold": 0.9},
    {"normalize": False},
    {"templates": ["the colour of a {}"]},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_setting_matters(tiny: Any, photo: Path, change: dict[str, Any]) -> None:
    before = tiny(photo, CLASSES)
    after = tiny.with_settings(tiny.settings.replace(**change))(photo, CLASSES)
    if set(change) <= {"score_threshold", "background_threshold", "normalize"}:
        assert np.array_equal(after.maps, before.maps)
        assert not np.array_equal(after.labels, before.labels)
    else:
        assert after.maps.shape != before.maps.shape or np.abs(after.maps - before.maps).max() > 1e-3


@pytest.mark.parametrize(
    "changes",
    [
        {"background_threshold": 0.0},
        {"score_threshold": 0.5},
        {"normalize": False},
        {"background_threshold": 0.7, "normalize": False},
    ],
)
def test_relabelled_equals_a_fresh_call(tiny: Any, photo: Path, changes: dict[str, Any]) -> None:
    fresh = tiny.with_settings(tiny.settings.replace(**changes))(photo, CLASSES)
    relabelled = tiny(photo, CLASSES).relabel(**changes)
    same(relabelled, fresh)
    assert relabelled.settings == fresh.settings


def test_where_settings_come_from(clip_folder: Path, tmp_path: Path) -> None:
    def settings(value: Any) -> Settings:
        return cliper.Segmenter.from_pretrained(clip_folder, settings=value, device="cpu").settings

    recommended = Settings(
        size=64, logit_scale=30, score_threshold=0.05, background_threshold=0.3, templates=("a photo of a {}.",)
    )
    assert settings(None) == recommended
    assert settings("vit-b-16/ade150") == load_preset("vit-b-16/ade150").settings
    assert settings(Settings(size=32)) == Settings(size=32)
    (tmp_path / "own.yaml").write_text("logit_scale: 5")
    assert settings(tmp_path / "own.yaml") == recommended.replace(logit_scale=5)
    with pytest.raises(SettingsError, match="no preset is called 'vit-b-16/ade'"):
        settings("vit-b-16/ade")


def test_a_layer_that_is_not_there(tiny: Any) -> None:
    for layer in (3, -4, 999):
        with pytest.raises(SettingsError, match=rf"select_layer: expected a layer from -3 to 2 for .*, got {layer}"):
            tiny.with_settings(tiny.settings.replace(select_layer=layer))
    for layer in (2, -3):
        tiny.with_settings(tiny.settings.replace(select_layer=layer))


def test_a_window_that_is_no_multiple_of_the_patch(tiny: Any, clip_folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"window: expected a multiple of the patch size 16 .*, got 120"):
        tiny.with_settings(tiny.settings.replace(window=120))
    gaps = tiny.with_settings(tiny.settings.replace(window=96))
    with pytest.raises(ShapeError, match=r"window: expected at least 112 pixels, .*, got 96, .* unseen"):
        gaps.class_maps(torch.zeros(3, 336, 336), torch.randn(2, gaps.encoder.embedding_width))
    with pytest.raises(SettingsError, match="window: expected a multiple"):
        cliper.Segmenter.from_pretrained(clip_folder, settings=Settings(window=113), device="cpu")


# --- background ------------------------------------------------------------------------------------------


def test_background_auto_none_and_names(tiny: Any, photo: Path) -> None:
    asked: list[list[str]] = []
    encode = tiny.encode_text
    other = tiny.with_settings(tiny.settings)
    other.encode_text = lambda names: (
        asked.append([item.name for item in parse_classes(names)]),
        encode(names),
    )[1]
    auto = other(photo, "dog; sky")
    same(auto, other(photo, "dog; sky", background="auto"))
    words = [item.name for item in scene_background(parse_classes("dog; sky"))]
    assert asked == [["dog", "sky"], words]  # the same words again are not encoded again
    assert "sky" not in words
    asked.clear()
    none = other(photo, "dog; sky", background=None)
    same(none, other(photo, "dog; sky", background=[]))
    assert asked == [["dog", "sky"]] * 2
    asked.clear()
    named = other(photo, "dog; sky", background="wall; old wood")
    same(named, other(photo, "dog; sky", background=["wall", "old wood"]))
    assert asked[1] == ["wall", "old wood"]
    assert not np.array_equal(auto.maps, none.maps)
    assert not np.array_equal(auto.maps, named.maps)
    with pytest.raises(ClassListError, match="background name 'Wall' is given twice"):
        tiny(photo, "dog", background="wall; Wall")


def test_all_scene_words_as_classes_leave_no_background(tiny: Any, photo: Path) -> None:
    words = [item.name for item in scene_background(parse_classes("zebra"))]
    same(tiny(photo, words), tiny(photo, words, background=None))


# --- texts and maps --------------------------------------------------------------------------------------


def test_text_embeddings_are_kept_between_segmenters(clip_folder: Path, own_cache: Path) -> None:
    first = cliper.Segmenter.from_pretrained(clip_folder, device="cpu")
    expected = first.encode_text(CLASSES)
    assert expected.shape == (3, 24)
    assert expected.dtype == torch.float32
    assert (own_cache / "text-embeddings.sqlite").is_file()
    second = cliper.Segmenter.from_pretrained(clip_folder, device="cpu")
    second.encoder.encode_prompts = lambda _: pytest.fail("it was encoded before")
    assert torch.equal(second.encode_text(CLASSES), expected)
    half = cliper.Segmenter.from_pretrained(clip_folder, device="cpu", dtype="bfloat16")
    assert not torch.equal(half.encode_text(CLASSES), expected)


def test_a_thousand_classes(tiny: Any, photo: Path, tmp_path: Path) -> None:
    result = tiny(photo, "; ".join(f"thing number {i}" for i in range(1000)))
    assert len(result.classes) == len(result.areas) == 1000
    assert result.labels.max() <= 1000
    result.save(tmp_path / "a.png")
    result.save_overlay(tmp_path / "b.png")
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png", photo.name}
    same(tiny(photo, list(result.classes)), result)


def test_without_a_tokenizer_pictures_still_work(clip_without_tokenizer: Path, photo: Path, tiny: Any) -> None:
    segmenter = cliper.Segmenter.from_pretrained(clip_without_tokenizer, device="cpu")
    pixels = torch.randn(3, 64, 96, generator=torch.Generator().manual_seed(0))
    foreground = tiny.encode_text(CLASSES)
    # The same seed made both checkpoints.
    assert torch.equal(segmenter.class_maps(pixels, foreground), tiny.class_maps(pixels, foreground))
    for use in (lambda: segmenter.encode_text("dog"), lambda: segmenter(photo, "dog")):
        with pytest.raises(CheckpointError) as caught:
            use()
        message = str(caught.value)
        assert "tokenizer.json" in message
        assert str(clip_without_tokenizer) in message
        assert "\n" not in message


def test_class_maps_of_a_batch_and_of_one(tiny: Any) -> None:
    pixels = torch.randn(3, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    foreground, background = tiny.encode_text(CLASSES), tiny.encode_text("wall; sky")
    kept = pixels.clone(), foreground.clone(), background.clone()
    maps = tiny.class_maps(pixels, foreground, background)
    assert maps.shape == (3, 3, 3, 4)
    assert maps.dtype == torch.float32
    for one, several in zip(pixels, maps, strict=True):
        torch.testing.assert_close(tiny.class_maps(one, foreground, background), several, atol=1e-5, rtol=0)
    assert all(torch.equal(a, b) for a, b in zip(kept, (pixels, foreground, background), strict=True))
    maps.add_(1)  # an ordinary tensor, in which a caller may write
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
def test_tensors_that_do_not_fit(tiny: Any, pixels: Any, foreground: Any, background: Any, words: str) -> None:
    other = None if background is None else torch.ones(background)
    with pytest.raises(ShapeError, match=words):
        tiny.class_maps(torch.ones(pixels), torch.ones(foreground), other)


def test_without_a_refiner_maps_come_back(tiny: Any) -> None:
    maps = torch.rand(2, 4, 5, dtype=torch.float64)
    refined = tiny.refine(torch.rand(3, 64, 64), maps)
    assert refined.dtype == torch.float32
    assert torch.equal(refined, maps.float())


def test_refined_maps_are_plain_tensors(tiny: Any) -> None:
    """Whatever the refiner and its maps are."""

    class Other:
        name = "other"

        def refine(self, pictures: Any, maps: Any, settings: Settings, seed: int = 0) -> list[torch.Tensor]:
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


# --- loading ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "", "cpu:x", "meta"])
def test_devices_that_are_not_there(clip_folder: Path, device: str) -> None:
    with pytest.raises(SettingsError, match=f"device: expected one that this machine has, such as cpu, got '{device}'"):
        cliper.Segmenter.from_pretrained(clip_folder, device=device)


@pytest.mark.parametrize("dtype", ["float64", "half", "", torch.int8, "torch"])
def test_dtypes_that_are_not_known(clip_folder: Path, dtype: Any) -> None:
    with pytest.raises(SettingsError, match="dtype: expected one of float32, float16, bfloat16, got '"):
        cliper.Segmenter.from_pretrained(clip_folder, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", torch.bfloat16, "torch.float16"])
def test_half_precision_gives_a_result(clip_folder: Path, photo: Path, dtype: Any) -> None:
    segmenter = cliper.Segmenter.from_pretrained(clip_folder, device="cpu", dtype=dtype)
    assert str(segmenter.encoder.dtype).endswith(str(dtype).removeprefix("torch."))
    result = segmenter(photo, CLASSES)
    assert result.maps.dtype == np.float32
    assert np.isfinite(result.maps).all()


def test_dtype_and_device_are_looked_at_before_weights(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        cliper.Segmenter.from_pretrained(tmp_path / "no", dtype="float64")
    with pytest.raises(CheckpointError, match="no such folder"):
        cliper.Segmenter.from_pretrained(tmp_path / "no", device="cpu")


def test_running_out_of_memory_is_one_error(tiny: Any, photo: Path) -> None:
    class Greedy:
        error: BaseException

        def __getattr__(self, name: str) -> Any:
            return getattr(tiny.encoder, name)

        def encode_pictures(self, *_: Any, **__: Any) -> Any:
            raise self.error

    greedy: Any = Greedy()
    other = cliper.Segmenter(greedy, tiny.checkpoint, tiny.settings)
    for error in (
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore lines"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 80 bytes."),
    ):
        greedy.error = error
        with pytest.raises(ResourceError, match="segmenting: out of memory; lower size") as caught:
            other(photo, CLASSES)
        assert "\n" not in str(caught.value)
        assert "lower size" in str(caught.value)
    greedy.error = RuntimeError("a defect")
    with pytest.raises(RuntimeError, match="a defect") as defect:
        other(photo, CLASSES)
    assert not isinstance(defect.value, CliperError)


# --- determinism -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"window": 112}, {"attention": "vanilla"}, {"recipe": "preprint"}], ids=str)
def test_the_same_call_gives_the_same_bits(tiny: Any, photo: Path, settings: dict[str, Any]) -> None:
    segmenter = tiny.with_settings(tiny.settings.replace(**settings))
    first = segmenter(photo, CLASSES)
    torch.rand(7)  # nothing depends on the global generator
    same(segmenter(photo, CLASSES), first)


def test_the_number_of_threads_hardly_matters(mini: Any) -> None:
    """Sums over 576 patches are split differently: 1e-7 in a cosine, times a scale of 32, in a softmax and a sum."""
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(mini(cliper.example_photo(), "horse; dog; person"))
    finally:
        torch.set_num_threads(before)
    assert results[0].areas["horse"] > 0.1
    close(*results, 1e-4)


def test_a_loaded_copy_gives_the_same_bits(clip_folder: Path, photo: Path, own_tiny: Any, tmp_path: Path) -> None:
    copy = shutil.copytree(clip_folder, tmp_path / "copy")
    same(cliper.Segmenter.from_pretrained(copy, device="cpu")(photo, CLASSES), own_tiny(photo, CLASSES))


# --- the bundled checkpoint ------------------------------------------------------------------------------


def test_the_bundled_checkpoint_finds_the_horses(mini: Any) -> None:
    result = mini(cliper.example_photo(), "horse; car")
    assert mini.checkpoint.name == "mini"
    assert mini.settings.logit_scale == 32
    assert 0.1 < result.areas["horse"] < 0.3
    assert result.areas["car"] < 0.01
    assert result.confidence[0] > 0.7


# --- the refiner's numbers and seed ----------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "given"), [(None, None), ("bfloat16", torch.bfloat16), ("float32", torch.float32)])
def test_a_refiner_has_its_own_number_format_where_none_was_asked_for(
    clip_folder: Path, monkeypatch: pytest.MonkeyPatch, asked: str | None, given: torch.dtype | None
) -> None:
    """None is passed on: on a GPU the refiner then is float16, while CLIP stays float32."""
    seen: list[Any] = []
    monkeypatch.setattr("cliper.segmenter.load_refiner", lambda name, *, dtype, **_: seen.append(dtype))
    segmenter = cliper.Segmenter.from_pretrained(clip_folder, refiner="dino-s16", device="cpu", dtype=asked)
    segmenter.with_refiner("dino-s8")
    segmenter.with_settings(segmenter.settings).with_refiner("dino-b8")
    assert seen == [given] * 3
    assert segmenter.encoder.dtype == (given or torch.float32)


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, 1.5, "1", None, True])
def test_seeds_that_random_numbers_cannot_begin_from(tiny: Any, clip_folder: Path, seed: Any) -> None:
    words = r"seed: expected a whole number from -9223372036854775808 to 18446744073709551615, got "
    with pytest.raises(SettingsError, match=words):
        cliper.Segmenter(tiny.encoder, tiny.checkpoint, tiny.settings, seed=seed)
    with pytest.raises(SettingsError, match=words):
        cliper.Segmenter.from_pretrained("nothing/there", seed=seed)  # before anything is looked for
    assert cliper.Segmenter(tiny.encoder, tiny.checkpoint, tiny.settings, seed=2**64 - 1).seed == 2**64 - 1
