"""Class maps of several views as one, and the choice of classes."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from cliper.ops import average_views, build_text_classifier, choose_classes, expand_synonyms
from cliper.ops.class_choice import select_texts


def test_views_are_averaged_upright_on_the_grid_of_the_first() -> None:
    generator = torch.Generator().manual_seed(1)
    small, mirrored, large = (torch.rand(2, *grid, generator=generator) for grid in ((3, 4), (3, 4), (6, 7)))
    got = average_views([small, mirrored, large], [False, True, False])
    resized = F.interpolate(large[None], (3, 4), mode="bilinear", align_corners=False)[0]
    expected = torch.zeros(2, 3, 4)
    for row in range(3):
        for column in range(4):
            values = (small[:, row, column], mirrored[:, row, 3 - column], resized[:, row, column])
            expected[:, row, column] = sum(values) / 3
    torch.testing.assert_close(got, expected)


def test_single_view_is_unchanged() -> None:
    maps = torch.rand(2, 3, 4)
    assert torch.equal(average_views([maps], [False]), maps)


scores = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]), min_size=1, max_size=6)


@given(scores, st.integers(0, 7), st.sampled_from([0.0, 0.2, 0.5, 1.0]))
def test_chosen_classes_are_those_of_a_loop(values: list[float], top: int, min_score: float) -> None:
    best = sorted(range(len(values)), key=lambda index: -values[index])[: top or None]
    expected = [index in best and value >= min_score * max(values) for index, value in enumerate(values)]
    assert choose_classes(torch.tensor(values), top=top, min_score=min_score).tolist() == expected
    assert any(expected)


@pytest.mark.parametrize("others", [0, 2])
def test_texts_of_other_classes_are_left_out(others: int) -> None:
    texts = build_text_classifier(torch.randn(4, 8), torch.randn(others, 8) if others else None)
    chosen = torch.tensor([False, True, False, True])
    kept, groups = select_texts(texts, chosen)
    assert groups is None
    assert torch.equal(kept, texts[[1, 3, *range(4, 5 + others)]])
    rows, groups = expand_synonyms(texts, {1: torch.randn(3, 8), 2: torch.randn(2, 8)})
    kept, left = select_texts(rows, chosen, groups)
    assert torch.equal(kept, rows[[1, 2, 3, 6, *range(7, 8 + others)]])
    assert left is not None
    assert left.tolist() == [0, 0, 0, 1, *range(2, 3 + others)]
