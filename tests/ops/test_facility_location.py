"""The greedy choice of representative embeddings against a slow loop, and its properties."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cliper.ops import facility_location


def units(count: int, width: int, seed: int) -> Tensor:
    rows = torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(rows, dim=-1)


def coverage(cosines: list[list[float]], chosen: list[int]) -> float:
    """The sum over all embeddings of the largest cosine to a chosen one; -1 without any."""
    return sum(max((row[index] for index in chosen), default=-1.0) for row in cosines)


def choose_slowly(embeddings: Tensor, count: int) -> list[int]:
    cosines = (embeddings.double() @ embeddings.double().T).tolist()
    chosen: list[int] = []
    for _ in range(min(count, len(cosines))):
        reached = {index: coverage(cosines, [*chosen, index]) for index in range(len(cosines)) if index not in chosen}
        # The first of equals, in spite of rounding: of two that are each other's nearest, say.
        chosen.append(next(index for index, value in reached.items() if value >= max(reached.values()) - 1e-9))
    return chosen


sizes = st.tuples(st.integers(1, 25), st.integers(2, 6), st.integers(0, 999))


@pytest.mark.parametrize("seed", range(5))
def test_choice_equals_that_of_a_loop_over_all_candidates(seed: int) -> None:
    embeddings = units(30, 4, seed)
    assert facility_location(embeddings, 12).tolist() == choose_slowly(embeddings, 12)


@given(size=sizes, count=st.integers(1, 30))
@settings(deadline=None, max_examples=40)
def test_each_choice_is_the_best_of_all_candidates(size: tuple[int, int, int], count: int) -> None:
    embeddings = units(*size)
    cosines = (embeddings @ embeddings.T).tolist()
    chosen = facility_location(embeddings, count).tolist()
    for length in range(len(chosen)):
        best = max(coverage(cosines, [*chosen[:length], index]) for index in range(len(cosines)))
        assert coverage(cosines, chosen[: length + 1]) >= best - 1e-9  # rounding of float64 sums


@given(size=sizes, count=st.integers(0, 30))
@settings(deadline=None, max_examples=40)
def test_gain_of_each_chosen_embedding_is_at_most_that_of_the_one_before(
    size: tuple[int, int, int], count: int
) -> None:
    embeddings = units(*size)
    chosen = facility_location(embeddings, count).tolist()
    assert len(chosen) == len(set(chosen)) == min(count, size[0])
    cosines = (embeddings @ embeddings.T).tolist()
    if chosen:
        totals = [sum(column) for column in zip(*cosines, strict=True)]
        assert totals[chosen[0]] >= max(totals) - 1e-9  # rounding of float64 sums; the medoid
    reached = [coverage(cosines, chosen[:length]) for length in range(len(chosen) + 1)]
    gains = [after - before for before, after in pairwise(reached)]
    assert all(later <= earlier + 1e-9 for earlier, later in pairwise(gains))


def test_equal_embeddings_are_chosen_last_and_in_their_order() -> None:
    east, north = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert facility_location(torch.cat([east, east, north, north, east]), 5).tolist() == [0, 2, 1, 3, 4]


def test_choice_from_no_embeddings_is_empty() -> None:
    assert facility_location(torch.zeros(0, 4), 3).tolist() == []
