"""``attention: proxy``, the affinity of a DINO in place of the fused attention, beside the plain statement of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPModel, ViTModel

import cliper
from cliper.encoders.class_map_predictor import ClassMapPredictor
from cliper.errors import CheckpointError, SettingsError
from cliper.ops import build_text_classifier
from cliper.ops.attention import attend_by_affinity
from cliper.refiners import load_refiner
from cliper.refiners.affinity import feature_affinity
from cliper.refiners.dino import DinoRefiner
from cliper.settings import Settings
from oracle import dino as dino_oracle
from oracle import proxy as oracle
from segmenter_helpers import clip_encoder
from test_differential import RECIPE_OF, TOLERANCE, inputs, random_clip


def load_dino(folder: Path) -> DinoRefiner:
    refiner = load_refiner(folder, device="cpu")
    assert isinstance(refiner, DinoRefiner)
    return refiner


def ours(model: CLIPModel, folder: Path, pixels: Tensor, fg: Tensor, bg: Tensor, **settings: Any) -> Tensor:
    chosen = Settings(attention="proxy", proxy_model=str(folder), **settings)
    predictor = ClassMapPredictor(clip_encoder(model), chosen, "tiny", load_dino(folder).affinity)
    batch = pixels if pixels.dim() == 4 else pixels[None]
    texts = build_text_classifier(fg, bg)
    maps = [predictor.predict(features, texts, len(fg)) for features in predictor.encode(batch)]
    return torch.stack(maps) if pixels.dim() == 4 else maps[0]


@torch.no_grad()
def theirs(model: CLIPModel, folder: Path, pixels: Tensor, fg: Tensor, bg: Tensor, **options: Any) -> Tensor:
    return oracle.coarse(model, ViTModel.from_pretrained(folder).eval(), pixels, fg, bg, **options)


# CLIP's patches of 14, 16 and 32 pixels, DINO's of 8: grids that are finer than CLIP's, and not whole multiples of it.
@pytest.mark.parametrize(("patch", "grid"), [(14, (9, 7)), (16, (7, 11)), (32, (6, 5)), (16, (3, 3))])
@pytest.mark.parametrize("recipe", ["conference", "preprint", "preprint-h"])
def test_class_maps_equal_the_plain_statement(
    dinos: dict[str, Path], recipe: str, patch: int, grid: tuple[int, int]
) -> None:
    model = random_clip(patch, 4, seed=patch)
    pixels, fg, bg = inputs(patch, grid, seed=grid[0])
    expected = theirs(
        model, dinos["dino"], pixels, fg, bg, scale=50.0, threshold=0.2, layer=-2, recipe=RECIPE_OF[recipe]
    )
    got = ours(
        model, dinos["dino"], pixels, fg, bg, logit_scale=50.0, map_threshold=0.2, select_layer=-2, recipe=recipe
    )
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("patch", "crop", "grid"), [(16, 224, (17, 21)), (32, 224, (11, 14)), (14, 224, (16, 16))])
def test_windows_attend_by_the_affinity_of_each_window(
    dinos: dict[str, Path], patch: int, crop: int, grid: tuple[int, int]
) -> None:
    model = random_clip(patch, 3, seed=crop)
    pixels, fg, bg = inputs(patch, grid, seed=grid[1])
    expected = theirs(model, dinos["dino"], pixels, fg, bg, scale=50.0, threshold=0.1, crop=crop)
    got = ours(model, dinos["dino"], pixels, fg, bg, logit_scale=50.0, map_threshold=0.1, window=crop)
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)


def test_proxy_is_not_the_fused_attention(dinos: dict[str, Path]) -> None:
    """If both gave nearly the same, the tests above would prove nothing."""
    model = random_clip(16, 4, seed=5)
    pixels, fg, bg = inputs(16, (7, 11), seed=16)
    proxy = ours(model, dinos["dino"], pixels, fg, bg, logit_scale=50.0, map_threshold=0.2)
    fused = ClassMapPredictor(clip_encoder(model), Settings(logit_scale=50.0, map_threshold=0.2), "tiny")
    maps = fused.predict(fused.encode(pixels[None])[0], build_text_classifier(fg, bg), len(fg))
    assert (proxy - maps).abs().max() > 100 * TOLERANCE


def test_batch_gives_what_its_images_give_alone(dinos: dict[str, Path]) -> None:
    model = random_clip(16, 3, seed=11)
    pixels = torch.stack([inputs(16, (7, 9), seed=seed)[0] for seed in range(2)])
    _, fg, bg = inputs(16, (7, 9), seed=0)
    together = ours(model, dinos["dino"], pixels, fg, bg, logit_scale=50.0, window=112)
    for image, maps in zip(pixels, together, strict=True):
        alone = ours(model, dinos["dino"], image, fg, bg, logit_scale=50.0, window=112)
        torch.testing.assert_close(maps, alone, atol=TOLERANCE, rtol=0)


def test_affinity_at_another_grid(dinos: dict[str, Path], images: list[Tensor]) -> None:
    refiner, vit = load_dino(dinos["dino"]), ViTModel.from_pretrained(dinos["dino"]).eval()
    image = images[1]  # 130x70 pixels, of which DINO gets 128x64
    got = refiner.affinity(image[None], (7, 5))
    normalised = torch.stack([image, image])  # rows sum to 1 for each image of a batch
    assert refiner.affinity(normalised, (7, 5)).sum(-1).sub(1).abs().max() < 1e-5
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    expected = oracle.proxy_affinity(vit, (image - mean) / std, (7, 5))
    # float32 sums in another order, in the two layers of the tiny DINO.
    torch.testing.assert_close(got[0], expected, atol=1e-5, rtol=0)


def test_affinity_matrix_is_the_formula_and_flat_rows_are_uniform() -> None:
    features = torch.randn(40, 16, generator=torch.Generator().manual_seed(0)) + 0.5
    torch.testing.assert_close(feature_affinity(features), dino_oracle.affinity(features), atol=1e-6, rtol=0)
    assert torch.equal(feature_affinity(torch.ones(16, 8)), torch.full((16, 16), 1 / 16))


def test_class_token_takes_no_part() -> None:
    generator = torch.Generator().manual_seed(0)
    affinity, value = torch.rand(2, 6, 6, generator=generator), torch.randn(2, 3, 7, 4, generator=generator)
    out = attend_by_affinity(affinity, value)
    assert torch.equal(out[:, :, 0], torch.zeros(2, 3, 4))
    torch.testing.assert_close(out[:, :, 1:], affinity[:, None] @ value[:, :, 1:], atol=0, rtol=0)
    other = value.clone()
    other[:, :, 0] = 100
    assert torch.equal(attend_by_affinity(affinity, other), out)
    assert attend_by_affinity(affinity, value.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["dino", "dinov2"])
def test_segmenter_with_proxy_attention(clip_folder: Path, dinos: dict[str, Path], make_image: Any, kind: str) -> None:
    settings = Settings(
        size=64,
        logit_scale=30,
        score_threshold=0.05,
        background_threshold=0.3,
        attention="proxy",
        proxy_model=str(dinos[kind]),
    )
    segmenter = cliper.Segmenter.from_pretrained(clip_folder, settings=settings, device="cpu")
    result = segmenter(make_image(), ["dog", "grass"])
    assert result.labels.shape == (64, 96)
    later = cliper.Segmenter.from_pretrained(clip_folder, device="cpu").with_settings(settings)
    assert np.array_equal(later(make_image(), ["dog", "grass"]).labels, result.labels)
    fused = segmenter.with_settings(settings.replace(attention="fused"))(make_image(), ["dog", "grass"])
    assert not np.array_equal(fused.maps, result.maps)


def test_one_dino_serves_as_proxy_and_as_refiner(
    clip_folder: Path, dinos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []

    def count(name: str, **options: Any) -> Any:
        loaded.append(name)
        return load_refiner(name, **options)

    monkeypatch.setattr("cliper.refiners.registry.load_refiner", count)
    folder = str(dinos["dino"])
    first = cliper.Segmenter.from_pretrained(clip_folder, refiner=folder, device="cpu")
    proxy = Settings(size=64, attention="proxy", proxy_model=folder)
    second = first.with_settings(proxy).with_refiner(None)
    third = second.with_settings(proxy.replace(size=96)).with_refiner(folder)
    assert third.refiner is first.refiner
    assert loaded == [folder]


def test_half_precision_reaches_the_proxy_model(clip_folder: Path, dinos: dict[str, Path]) -> None:
    folder = str(dinos["dino"])
    settings = Settings(size=64, attention="proxy", proxy_model=folder)
    segmenter = cliper.Segmenter.from_pretrained(clip_folder, settings=settings, device="cpu", dtype="bfloat16")
    refiner = segmenter.with_refiner(folder).refiner
    assert isinstance(refiner, DinoRefiner)
    assert refiner.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["self", "none", "sd2.1", "ViT-B/16", "no/such/folder", "dinosaur-b8"])
def test_proxy_model_must_be_a_dino(clip_folder: Path, name: str) -> None:
    settings = Settings(size=64, attention="proxy", proxy_model=name)
    with pytest.raises(SettingsError, match=r"^proxy_model: expected a DINO for attention 'proxy'") as caught:
        cliper.Segmenter.from_pretrained(clip_folder, settings=settings, device="cpu")
    assert "\n" not in str(caught.value)
    cliper.Segmenter.from_pretrained(clip_folder, settings=settings.replace(attention="fused"), device="cpu")


def test_proxy_model_that_cannot_be_fetched_is_named(clip_folder: Path) -> None:
    settings = Settings(size=64, attention="proxy", proxy_model="owner/no-such-dino")
    with pytest.raises(CheckpointError, match="owner/no-such-dino"):
        cliper.Segmenter.from_pretrained(clip_folder, settings=settings, device="cpu")


def test_proxy_attention_without_a_model_is_refused() -> None:
    encoder = clip_encoder(random_clip(16, 3, seed=1))
    with pytest.raises(SettingsError, match=r"^attention: expected a DINO for 'proxy', got none"):
        ClassMapPredictor(encoder, Settings(attention="proxy"), "tiny")


def test_command_line(command: Any, clip_folder: Path, dinos: dict[str, Path], tmp_path: Path, make_image: Any) -> None:
    photo, choice = tmp_path / "photo.png", ["-m", clip_folder, "-c", "dog; grass", "--attention", "proxy"]
    make_image().save(photo)
    ended = command("segment", photo, *choice, "--proxy-model", dinos["dino"], "-o", tmp_path / "out")
    assert (ended.code, ended.err) == (0, "")
    with Image.open(tmp_path / "out" / "photo.labels.png") as labels:
        assert labels.size == (96, 64)
    ended = command("segment", photo, *choice, "--proxy-model", "sd2.1")
    assert ended.code == 2
    assert ended.err.startswith("cliper: error: proxy_model: expected a DINO for attention 'proxy' (dino-s16, ")
