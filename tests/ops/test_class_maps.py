"""From embeddings to class maps."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from cliper.errors import ShapeError
from cliper.ops import (
    RECIPES,
    build_text_classifier,
    class_maps,
    class_probabilities,
    expand_synonyms,
    interpolate_position_embedding,
)


def test_text_classifier_has_classes_background_and_mean() -> None:
    fg, bg = torch.randn(3, 8), torch.randn(2, 8)
    expected = F.normalize(torch.cat([fg, bg, fg.mean(0, keepdim=True)]), dim=-1)
    torch.testing.assert_close(build_text_classifier(fg, bg), expected)
    assert len(build_text_classifier(fg)) == 4
    assert len(build_text_classifier(fg, bg, with_mean=False)) == 5


@pytest.mark.parametrize(("fg", "bg"), [((0, 8), None), ((8,), None), ((2, 8), (1, 7)), ((2, 8), (8,))])
def test_texts_of_wrong_shape_are_refused(fg: tuple[int, ...], bg: tuple[int, ...] | None) -> None:
    with pytest.raises(ShapeError, match="expected"):
        build_text_classifier(torch.ones(fg), None if bg is None else torch.ones(bg))


@given(scale=st.floats(1, 100), classes=st.integers(1, 6), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_probabilities_are_a_softmax_over_texts(scale: float, classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    patches = F.normalize(torch.randn(9, 5, generator=generator), dim=-1)
    texts = F.normalize(torch.randn(classes + 2, 5, generator=generator), dim=-1)
    got = class_probabilities(patches, texts, scale, classes)
    expected = (scale * patches @ texts.T).softmax(-1).T[:classes]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)  # scale times float32's rounding of a cosine
    assert got.shape == (classes, 9)


# --- synonyms ------------------------------------------------------------------------------------------------

scales, seeds = st.floats(1, 100), st.integers(0, 99)


def units(count: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(count, 5, generator=torch.Generator().manual_seed(seed)), dim=-1)


@given(scale=scales, counts=st.lists(st.integers(1, 4), min_size=1, max_size=5), seed=seeds)
@settings(deadline=None, max_examples=30)
def test_merged_synonyms_equal_a_loop_over_patches_and_texts(scale: float, counts: list[int], seed: int) -> None:
    patches, texts = units(6, seed), units(len(counts), seed + 1)
    synonyms = {index: units(n, seed + 2 + index) for index, n in enumerate(counts) if n > 1}
    rows, groups = expand_synonyms(texts, synonyms)
    assert groups.tolist() == [index for index, n in enumerate(counts) for _ in range(n)]
    got = class_probabilities(patches, rows, scale, len(counts), groups)
    for column, patch in enumerate(patches.double()):
        logits = []
        for index, n in enumerate(counts):
            words = synonyms.get(index, texts[index : index + 1]).double()
            logits.append(math.log(sum(math.exp(scale * float(patch @ word)) / n for word in words)))
        top = max(logits)
        total = sum(math.exp(logit - top) for logit in logits)
        expected = torch.tensor([math.exp(logit - top) / total for logit in logits])
        # The scale of up to 100 times float32's rounding of a cosine.
        torch.testing.assert_close(got[:, column], expected, atol=3e-5, rtol=0)


@given(scale=scales, copies=st.integers(1, 5), seed=seeds)
@settings(deadline=None, max_examples=30)
def test_equal_synonyms_are_like_one(scale: float, copies: int, seed: int) -> None:
    patches, texts = units(9, seed), units(4, seed + 1)
    rows, groups = expand_synonyms(texts, {1: texts[1:2].repeat(copies, 1)})
    got = class_probabilities(patches, rows, scale, 3, groups)
    torch.testing.assert_close(got, class_probabilities(patches, texts, scale, 3), atol=1e-5, rtol=0)


@given(scale=scales, seed=seeds)
@settings(deadline=None, max_examples=30)
def test_order_of_synonyms_does_not_matter(scale: float, seed: int) -> None:
    patches, texts, words = units(9, seed), units(3, seed + 1), units(4, seed + 2)
    one, other = (
        class_probabilities(patches, rows, scale, 2, groups)
        for rows, groups in (expand_synonyms(texts, {0: words}), expand_synonyms(texts, {0: words.flip(0)}))
    )
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_class_maps_with_equal_synonyms_equal_those_with_one(name: str) -> None:
    embeddings, windows = units(27, 3).reshape(3, 9, 5), units(27, 4).reshape(3, 9, 5)
    affinity, texts = torch.rand(9, 9, generator=torch.Generator().manual_seed(1)), build_text_classifier(units(2, 5))
    rows, groups = expand_synonyms(texts, {0: texts[:1].repeat(3, 1)})
    one, merged = (
        class_maps(
            embeddings,
            affinity,
            *(given, 2),
            logit_scale=10,
            map_threshold=0.3,
            selected=-1,
            recipe=RECIPES[name],
            window_embeddings=windows,
            groups=of,
        )
        for given, of in ((texts, None), (rows, groups))
    )
    torch.testing.assert_close(merged, one, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_arguments_are_not_changed(name: str) -> None:
    embeddings = F.normalize(torch.randn(3, 9, 5), dim=-1)
    affinity, texts = torch.rand(9, 9), build_text_classifier(torch.randn(2, 5))
    before = embeddings.clone(), affinity.clone(), texts.clone()
    class_maps(embeddings, affinity, texts, 2, logit_scale=10, map_threshold=0.5, selected=-2, recipe=RECIPES[name])
    assert all(torch.equal(a, b) for a, b in zip((embeddings, affinity, texts), before, strict=True))


def test_position_embedding_of_its_own_grid_is_unchanged() -> None:
    table = torch.randn(1 + 49, 6)
    torch.testing.assert_close(interpolate_position_embedding(table, (7, 7)), table)
    resized = interpolate_position_embedding(table, (4, 9))
    assert resized.shape == (37, 6)
    assert torch.equal(resized[0], table[0])


def test_position_embedding_that_is_not_square_is_refused() -> None:
    with pytest.raises(ShapeError, match="s \\* s rows for the patches, got 50"):
        interpolate_position_embedding(torch.ones(51, 4), (7, 7))
