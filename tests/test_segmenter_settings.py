"""The settings of a segmenter, and loading its models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cliper
from cliper.errors import CheckpointError, CliperError, ResourceError, SettingsError, ShapeError
from cliper.settings import RECIPES, Settings, load_preset
from segmenter_helpers import CLASSES, assert_same

# --- settings --------------------------------------------------------------------------------------------


def test_with_settings_shares_the_encoder_and_equals_a_fresh_segmenter(
    own_tiny: Any, photo: Path, clip_folder: Path
) -> None:
    settings = own_tiny.settings.replace(size=96, logit_scale=10, select_layer=0, attention="k-k", fuse_features=False)
    other = own_tiny.with_settings(settings)
    assert other.encoder is own_tiny.encoder
    assert other.settings == settings
    assert own_tiny.settings.size == 64
    fresh = cliper.Segmenter.from_pretrained(clip_folder, settings=settings, device="cpu")
    assert_same(other(photo, CLASSES), fresh(photo, CLASSES))
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
def test_every_setting_changes_the_result(tiny: Any, photo: Path, change: dict[str, Any]) -> None:
    before = tiny(photo, CLASSES)
    after = tiny.with_settings(tiny.settings.replace(**change))(photo, CLASSES)
    if set(change) <= {"score_threshold", "background_threshold", "normalize"}:
        assert np.array_equal(after.maps, before.maps)
        assert not np.array_equal(after.labels, before.labels)
    else:
        assert after.maps.shape != before.maps.shape or np.abs(after.maps - before.maps).max() > 1e-3


def test_preprint_recipe_is_that_of_the_checkpoints_shape(own_clip: Path, photo: Path) -> None:
    segmenter = cliper.Segmenter.from_pretrained(own_clip, device="cpu")
    recipes = {name: segmenter.with_settings(segmenter.settings.replace(recipe=name)) for name in RECIPES}
    # The shape is read from config.json; a real ViT-H/14 is too large for a test.
    config = json.loads((own_clip / "config.json").read_text())
    config["vision_config"] |= {"num_hidden_layers": 32, "hidden_size": 1280, "patch_size": 14}
    (own_clip / "config.json").write_text(json.dumps(config))
    variant = segmenter.with_settings(segmenter.settings.replace(recipe="preprint"))
    assert variant.settings.recipe == "preprint"
    maps = variant(photo, CLASSES).maps
    assert np.array_equal(maps, recipes["preprint-h"](photo, CLASSES).maps)
    assert not np.array_equal(maps, recipes["preprint"](photo, CLASSES).maps)


@pytest.mark.parametrize(
    "changes",
    [
        {"background_threshold": 0.0},
        {"score_threshold": 0.5},
        {"normalize": False},
        {"background_threshold": 0.7, "normalize": False},
    ],
)
def test_relabel_equals_a_new_call_with_those_thresholds(tiny: Any, photo: Path, changes: dict[str, Any]) -> None:
    fresh = tiny.with_settings(tiny.settings.replace(**changes))(photo, CLASSES)
    relabelled = tiny(photo, CLASSES).relabel(**changes)
    assert_same(relabelled, fresh)
    assert relabelled.settings == fresh.settings


def test_from_pretrained_accepts_preset_settings_file_or_none(clip_folder: Path, tmp_path: Path) -> None:
    def settings(value: Any) -> Settings:
        return cliper.Segmenter.from_pretrained(clip_folder, settings=value, device="cpu").settings

    recommended = Settings.from_mapping(json.loads((clip_folder / "settings.json").read_text()))
    assert settings(None) == recommended
    assert settings("vit-b-16/ade150") == load_preset("vit-b-16/ade150").settings
    assert settings(Settings(size=32)) == Settings(size=32)
    (tmp_path / "own.yaml").write_text("logit_scale: 5")
    assert settings(tmp_path / "own.yaml") == recommended.replace(logit_scale=5)
    with pytest.raises(SettingsError, match="no preset is called 'vit-b-16/ade'"):
        settings("vit-b-16/ade")


def test_select_layer_out_of_range_is_refused(tiny: Any) -> None:
    for layer in (3, -4, 999):
        with pytest.raises(SettingsError, match=rf"select_layer: expected a layer from -3 to 2 for .*, got {layer}"):
            tiny.with_settings(tiny.settings.replace(select_layer=layer))
    for layer in (2, -3):
        tiny.with_settings(tiny.settings.replace(select_layer=layer))


def test_window_must_be_a_multiple_of_the_patch_and_cover_the_image(tiny: Any, clip_folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"window: expected a multiple of the patch size 16 .*, got 120"):
        tiny.with_settings(tiny.settings.replace(window=120))
    gaps = tiny.with_settings(tiny.settings.replace(window=96))
    with pytest.raises(ShapeError, match=r"window: expected at least 112 pixels, .*, got 96, .* unseen"):
        gaps.class_maps(torch.zeros(3, 336, 336), torch.randn(2, gaps.encoder.embedding_width))
    with pytest.raises(SettingsError, match="window: expected a multiple"):
        cliper.Segmenter.from_pretrained(clip_folder, settings=Settings(window=113), device="cpu")


# --- loading ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "", "cpu:x", "meta"])
def test_missing_devices_are_refused(clip_folder: Path, device: str) -> None:
    with pytest.raises(SettingsError, match=f"device: expected one of cpu.*, got '{device}'"):
        cliper.Segmenter.from_pretrained(clip_folder, device=device)


@pytest.mark.parametrize("dtype", ["float64", "half", "", torch.int8, "torch"])
def test_unknown_dtypes_are_refused(clip_folder: Path, dtype: Any) -> None:
    with pytest.raises(SettingsError, match="dtype: expected one of float32, float16, bfloat16, got '"):
        cliper.Segmenter.from_pretrained(clip_folder, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", torch.bfloat16, "torch.float16"])
def test_half_precision_gives_finite_maps(clip_folder: Path, photo: Path, dtype: Any) -> None:
    segmenter = cliper.Segmenter.from_pretrained(clip_folder, device="cpu", dtype=dtype)
    assert str(segmenter.encoder.dtype).endswith(str(dtype).removeprefix("torch."))
    result = segmenter(photo, CLASSES)
    assert result.maps.dtype == np.float32
    assert np.isfinite(result.maps).all()


def test_dtype_and_device_are_checked_before_weights(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        cliper.Segmenter.from_pretrained(tmp_path / "no", dtype="float64")
    with pytest.raises(CheckpointError, match="no such folder"):
        cliper.Segmenter.from_pretrained(tmp_path / "no", device="cpu")


def test_out_of_memory_becomes_resource_error(tiny: Any, photo: Path) -> None:
    class Greedy:
        error: BaseException

        def __getattr__(self, name: str) -> Any:
            return getattr(tiny.encoder, name)

        def encode_images(self, *_: Any, **__: Any) -> Any:
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


# --- the refiner's dtype and seed ------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "given"), [(None, None), ("bfloat16", torch.bfloat16), ("float32", torch.float32)])
def test_refiner_gets_the_dtype_that_was_given_or_none(
    clip_folder: Path, monkeypatch: pytest.MonkeyPatch, asked: str | None, given: torch.dtype | None
) -> None:
    """None is passed on: on a GPU the refiner is then float16, and CLIP float32."""
    seen: list[Any] = []
    monkeypatch.setattr("cliper.refiners.registry.load_refiner", lambda name, *, dtype, **_: seen.append(dtype))
    segmenter = cliper.Segmenter.from_pretrained(clip_folder, refiner="dino-s16", device="cpu", dtype=asked)
    segmenter.with_refiner("dino-s8")
    segmenter.with_settings(segmenter.settings).with_refiner("dino-b8")
    assert seen == [given] * 3
    assert segmenter.encoder.dtype == (given or torch.float32)


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, 1.5, "1", None, True])
def test_seeds_out_of_range_are_refused(tiny: Any, clip_folder: Path, seed: Any) -> None:
    words = r"seed: expected a whole number from -9223372036854775808 to 18446744073709551615, got "
    with pytest.raises(SettingsError, match=words):
        cliper.Segmenter(tiny.encoder, tiny.checkpoint, tiny.settings, seed=seed)
    with pytest.raises(SettingsError, match=words):
        cliper.Segmenter.from_pretrained("nothing/there", seed=seed)  # before the checkpoint is resolved
    assert cliper.Segmenter(tiny.encoder, tiny.checkpoint, tiny.settings, seed=2**64 - 1).seed == 2**64 - 1
