"""From embeddings to class maps."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from cliper.errors import ShapeError
from cliper.ops import RECIPES, build_text_classifier, class_maps, class_probabilities, interpolate_position_embedding


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
    with pytest.raises(ShapeError, match="1 \\+ s \\* s"):
        interpolate_position_embedding(torch.ones(51, 4), (7, 7))
