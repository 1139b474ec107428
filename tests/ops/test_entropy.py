"""The entropy of predictions against a loop, and which predictors are kept by it."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cliper.ops import has_low_entropy, prediction_entropy


@given(texts=st.integers(1, 6), patches=st.integers(1, 9), scale=st.floats(0, 100), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_entropy_equals_a_sum_over_texts_and_patches(texts: int, patches: int, scale: float, seed: int) -> None:
    logits = scale * torch.randn(texts, patches, generator=torch.Generator().manual_seed(seed))
    probabilities = logits.softmax(0)
    total = 0.0
    for column in probabilities.T.tolist():
        total -= sum(value * math.log(value) for value in column if value > 0)
    assert math.isclose(float(prediction_entropy(probabilities)), total / patches, abs_tol=1e-5)  # float32 sums


def test_entropy_is_0_for_sure_and_log_of_the_texts_for_equal_predictions() -> None:
    assert float(prediction_entropy(torch.eye(4))) == 0
    assert math.isclose(float(prediction_entropy(torch.full((4, 3), 0.25))), math.log(4), rel_tol=1e-6)  # float32


def test_predictors_below_the_mean_are_kept() -> None:
    assert has_low_entropy(torch.tensor([1.0, 3.0, 1.5, 0.9])).tolist() == [True, False, True, True]


@given(st.lists(st.floats(0, 5, width=32), min_size=1, max_size=90))
def test_at_least_the_lowest_and_all_equal_predictors_are_kept(values: list[float]) -> None:
    kept = has_low_entropy(torch.tensor(values)).tolist()
    assert kept[values.index(min(values))]
    assert all(has_low_entropy(torch.full((len(values),), values[0])).tolist())
