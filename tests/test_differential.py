"""The package equals the oracle (``tests/oracle/reference.py``) on random CLIPs of many shapes."""

import dataclasses
from typing import Any

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

import cliper
from cliper.ops import RECIPES, build_text_classifier, class_maps
from oracle import reference
from segmenter_helpers import clip_encoder

# Both compute in float32 and sum in other orders: cosines differ by about 1e-7, times a scale of up to 100.
TOLERANCE = 1e-4

RECIPE_OF = {
    "conference": reference.CONFERENCE,
    "preprint": reference.PREPRINT,
    "preprint-h": reference.PREPRINT_H,
}
# The oracle's names of a recipe's fields -> the package's.
RECIPE_FIELDS = {
    "spread": "propagate_along",
    "last_in_mean": "include_last_layer",
    "early_weight": "mean_weight",
    "cap": "clip_to_one",
}


def random_clip(patch: int, layers: int, seed: int, *, act: str = "quick_gelu", heads: int = 2) -> CLIPModel:
    """A tiny CLIP whose attention is far from uniform: with the usual initialisation all maps are nearly flat."""
    torch.manual_seed(seed)
    vision = {
        "hidden_size": 32 * heads,
        "intermediate_size": 96,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": 7 * patch,
        "patch_size": patch,
        "hidden_act": act,
    }
    text = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 99,
    }
    model = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=24)).eval()
    with torch.no_grad():
        for name, parameter in model.vision_model.named_parameters():
            if "layer_norm" in name or "layrnorm" in name or "layernorm" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
            else:
                parameter.copy_(torch.randn_like(parameter) * 2.0 / max(parameter.shape[-1], 1) ** 0.5)
    return model


def inputs(patch: int, grid: tuple[int, int], seed: int, classes: int = 5, others: int = 3) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(3, patch * grid[0], patch * grid[1], generator=generator)
    return pixels, torch.randn(classes, 24, generator=generator), torch.randn(others, 24, generator=generator)


def ours(
    model: CLIPModel,
    pixels: torch.Tensor,
    fg: torch.Tensor,
    bg: torch.Tensor | None,
    *,
    scale: float,
    threshold: float,
    layer: int = -1,
    crop: int = 0,
    recipe: str = "conference",
    attention: str = "fused",
) -> torch.Tensor:
    encoder = clip_encoder(model)
    features = encoder.encode_images(
        pixels[None], recipe=RECIPES[recipe], attention=attention, layers=range(encoder.num_layers), window=crop
    )[0]
    maps = class_maps(
        features.embeddings,
        features.affinity,
        build_text_classifier(fg, bg),
        len(fg),
        logit_scale=scale,
        map_threshold=threshold,
        selected=layer,
        recipe=RECIPES[recipe],
        window_embeddings=features.window_embeddings,
    )
    return maps.reshape(len(fg), *features.grid)


@torch.no_grad()
def theirs(model: CLIPModel, *args: Any, recipe: str = "conference", **options: Any) -> torch.Tensor:
    return reference.coarse(model, *args, recipe=RECIPE_OF[recipe], **options)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(
    ("patch", "layers", "grid"), [(14, 2, (9, 7)), (16, 5, (7, 11)), (32, 12, (6, 5)), (16, 3, (1, 1))]
)
@pytest.mark.parametrize("layer", [-1, -2, 0])
def test_recipes(recipe: str, patch: int, layers: int, grid: tuple[int, int], layer: int) -> None:
    model = random_clip(patch, layers, seed=layers, act="gelu" if patch == 14 else "quick_gelu")
    pixels, fg, bg = inputs(patch, grid, seed=patch)
    options = {"scale": 50.0, "threshold": 0.2, "layer": layer, "recipe": recipe}
    expected = theirs(model, pixels, fg, bg, **options)
    torch.testing.assert_close(ours(model, pixels, fg, bg, **options), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("recipe", ["conference", "preprint"])
@pytest.mark.parametrize(
    ("patch", "crop", "grid"),
    [(16, 224, (17, 21)), (14, 336, (24, 37)), (32, 224, (11, 14)), (16, 224, (9, 30)), (14, 224, (16, 16))],
)
def test_windows(recipe: str, patch: int, crop: int, grid: tuple[int, int]) -> None:
    model = random_clip(patch, 3, seed=crop)
    pixels, fg, bg = inputs(patch, grid, seed=grid[1])
    options = {"scale": 50.0, "threshold": 0.1, "layer": -2, "crop": crop, "recipe": recipe}
    expected = theirs(model, pixels, fg, bg, **options)
    torch.testing.assert_close(ours(model, pixels, fg, bg, **options), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("attention", ["vanilla", "q-q", "k-k", "v-v", "identity"])
@pytest.mark.parametrize("layers", [2, 6])
def test_ablations(attention: str, layers: int) -> None:
    model = random_clip(16, layers, seed=7, heads=3)
    pixels, fg, bg = inputs(16, (8, 6), seed=1)
    options = {"scale": 100.0, "threshold": 0.1, "attention": attention}
    expected = theirs(model, pixels, fg, bg, **options)
    torch.testing.assert_close(ours(model, pixels, fg, bg, **options), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("classes", "others"), [(1, 0), (1, 4), (40, 0)])
def test_one_and_many_texts(classes: int, others: int) -> None:
    model = random_clip(16, 3, seed=3)
    pixels, fg, bg = inputs(16, (6, 6), seed=2, classes=classes, others=others)
    expected = theirs(model, pixels, fg, bg, scale=100.0, threshold=0.1)
    got = ours(model, pixels, fg, bg if others else None, scale=100.0, threshold=0.1)
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)


def test_recipes_differ_by_far_more_than_the_tolerance() -> None:
    """Otherwise the tests above could not fail."""
    model = random_clip(16, 5, seed=5)
    pixels, fg, bg = inputs(16, (7, 11), seed=16)
    results = [theirs(model, pixels, fg, bg, scale=50.0, threshold=0.2, recipe=name) for name in RECIPES]
    fused = results[0]
    for attention in ("vanilla", "identity"):
        results.append(theirs(model, pixels, fg, bg, scale=50.0, threshold=0.2, attention=attention))
    for a in range(len(results)):
        for b in range(a):
            assert (results[a] - results[b]).abs().max() > 100 * TOLERANCE
    assert dataclasses.asdict(RECIPES["preprint-h"]) == {
        RECIPE_FIELDS.get(name, name): value for name, value in dataclasses.asdict(reference.PREPRINT_H).items()
    }
    assert fused.isfinite().all()


@pytest.mark.parametrize("recipe", ["conference", "preprint"])
def test_without_feature_fusion_only_the_selected_layer_counts(recipe: str) -> None:
    model = random_clip(16, 4, seed=9)
    pixels, fg, bg = inputs(16, (6, 7), seed=4)
    encoder = clip_encoder(model)
    kind = RECIPES[recipe]
    texts = build_text_classifier(fg, bg)
    with torch.no_grad():
        embeddings, attention = reference.encode(model, pixels, RECIPE_OF[recipe])
    for layer in range(4):
        scores = reference.logits(embeddings[layer, 1:], torch.cat([fg, bg, fg.mean(0, keepdim=True)]), 50.0)
        top = scores.softmax(-1)[:, :5].T
        top = torch.where(top < top.amax(-1, keepdim=True) * 0.2, 0, top)
        spread = attention.mean(0)[1:, 1:]
        expected = top @ (spread if recipe == "conference" else spread.T)
        features = encoder.encode_images(pixels[None], recipe=kind, attention="fused", layers=[layer])[0]
        got = class_maps(
            features.embeddings,
            features.affinity,
            texts,
            5,
            logit_scale=50.0,
            map_threshold=0.2,
            selected=0,
            recipe=kind,
            fuse_features=False,
        )
        torch.testing.assert_close(got, expected.detach(), atol=TOLERANCE, rtol=0)


def test_batch_equals_single_images() -> None:
    model = random_clip(16, 4, seed=11)
    encoder = clip_encoder(model)
    pixels = torch.stack([inputs(16, (7, 9), seed=s)[0] for s in range(3)])
    options: dict[str, Any] = {"recipe": RECIPES["conference"], "attention": "fused", "layers": range(4), "window": 96}
    together = encoder.encode_images(pixels, **options)
    for image, features in zip(pixels, together, strict=True):
        alone = encoder.encode_images(image[None], **options)[0]
        # Rows of a larger product may be summed in another order.
        torch.testing.assert_close(features.embeddings, alone.embeddings, atol=1e-5, rtol=0)
        torch.testing.assert_close(features.affinity, alone.affinity, atol=1e-5, rtol=0)
        torch.testing.assert_close(features.window_embeddings, alone.window_embeddings, atol=1e-5, rtol=0)


# Weights and activations are rounded to 11 (float16) or 8 (bfloat16) bits in every layer, and the resulting cosines are
# multiplied by the scale before a softmax. Share of the largest value of the maps, at scale 10:
HALF_TOLERANCE = {torch.float16: 0.01, torch.bfloat16: 0.08}


@pytest.mark.parametrize("dtype", HALF_TOLERANCE, ids=str)
@pytest.mark.parametrize("attention", ["fused", "vanilla"])
def test_half_precision_stays_near_float32(dtype: torch.dtype, attention: str) -> None:
    pixels, fg, bg = inputs(16, (7, 9), seed=5)
    options: dict[str, Any] = {"scale": 10.0, "threshold": 0.0, "attention": attention}
    expected = theirs(random_clip(16, 4, seed=13), pixels, fg, bg, **options)
    got = ours(random_clip(16, 4, seed=13).to(dtype), pixels, fg, bg, **options)
    assert got.dtype == torch.float32
    assert (got - expected).abs().max() <= HALF_TOLERANCE[dtype] * expected.max()


# Trained weights at their own scale: only pixels at the borders between labels differ.
@pytest.mark.parametrize(("dtype", "agreement"), [("float16", 0.995), ("bfloat16", 0.97)])
def test_half_precision_labels_of_the_bundled_model(dtype: str, agreement: float) -> None:
    exact = cliper.Segmenter.from_pretrained(device="cpu")(cliper.example_photo(), "horse; dog; person")
    half = cliper.Segmenter.from_pretrained(device="cpu", dtype=dtype)(cliper.example_photo(), "horse; dog; person")
    assert (exact.labels > 0).mean() > 0.1
    assert (exact.labels == half.labels).mean() >= agreement
