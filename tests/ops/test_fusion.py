"""Early-layer fusion's formulas."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cliper.ops import RECIPES, Recipe, fuse_values, fused_attention


def random_total(heads: int, tokens: int, seed: int, sharpness: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(3, heads, tokens, tokens, generator=generator)
    return logits.softmax(-1).sum(0)


def plain(total: torch.Tensor, rounds: int, recipe: Recipe) -> torch.Tensor:
    """Section 2 of ``docs/method.md`` as it is written, in float64."""
    m = total.double()
    for _ in range(rounds):
        m = m / m.sum(-2, keepdim=True)
        m = m / m.sum(-1, keepdim=True)
    s = (m + m.transpose(-1, -2)) / 2
    level = s.mean(-2, keepdim=True) if recipe.center == "mean" else s.amax(-2, keepdim=True)
    s = (s - recipe.center_weight * level).clamp(min=0)
    return s / s.sum(-1, keepdim=True)


@given(
    heads=st.integers(1, 3), tokens=st.integers(2, 40), rounds=st.integers(1, 12), seed=st.integers(0, 999),
    name=st.sampled_from(sorted(RECIPES)),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_scaling_vectors_equal_rewriting_the_matrix(heads: int, tokens: int, rounds: int, seed: int, name: str) -> None:
    total = random_total(heads, tokens, seed)
    before = total.clone()
    got = fused_attention(total, rounds, RECIPES[name])
    # float32 against float64; entries are at most 1 and what is taken off them is of their own size.
    torch.testing.assert_close(got.double(), plain(total, rounds, RECIPES[name]), atol=2e-5, rtol=0)
    assert torch.equal(total, before), "the argument was changed"
    torch.testing.assert_close(got.sum(-1), torch.ones(heads, tokens), atol=1e-5, rtol=0)
    assert got.min() >= 0


@given(seed=st.integers(0, 999), tokens=st.integers(2, 24))
@settings(max_examples=25, deadline=None)
def test_fusion_is_equivariant_to_token_order(seed: int, tokens: int) -> None:
    total = random_total(1, tokens, seed)[0]
    order = torch.randperm(tokens, generator=torch.Generator().manual_seed(seed))
    straight = fused_attention(total, 4)
    turned = fused_attention(total[order][:, order].contiguous(), 4)
    torch.testing.assert_close(turned, straight[order][:, order], atol=2e-5, rtol=0)  # sums in another order


@pytest.mark.parametrize("layers", [[0, 1, 2, 3], [3], [1], [0, 2]])
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_values_of_each_layer_equal_the_dense_product(layers: list[int], name: str) -> None:
    total = random_total(3, 17, seed=1)
    values = torch.randn(len(layers), 3, 17, 8, generator=torch.Generator().manual_seed(2))
    before = total.clone(), values.clone()
    mixed, mean = fuse_values(total, values, layers, 4, RECIPES[name])
    for place, layer in enumerate(layers):
        expected = plain(total, layer + 1, RECIPES[name]) @ values[place].double()
        torch.testing.assert_close(mixed[place].double(), expected, atol=1e-4, rtol=0)  # values are up to about 3
    torch.testing.assert_close(mean.double(), plain(total, 4, RECIPES[name]).mean(0), atol=2e-5, rtol=0)
    assert torch.equal(total, before[0])
    assert torch.equal(values, before[1])


def test_token_without_attention_gives_finite_values() -> None:
    total = random_total(1, 6, seed=3)
    total[:, :, 2] = 0
    total[:, 4, :] = 0
    for recipe in RECIPES.values():
        assert fused_attention(total, 5, recipe).isfinite().all()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_result_is_bitwise_equal_for_any_number_of_threads(threads: int) -> None:
    total, values = random_total(6, 30, seed=4), torch.randn(2, 6, 30, 8, generator=torch.Generator().manual_seed(5))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = fuse_values(total, values, [0, 1], 2, Recipe())
        torch.set_num_threads(threads)
        for _ in range(3):
            got = fuse_values(total, values, [0, 1], 2, Recipe())
            assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    finally:
        torch.set_num_threads(before)


def test_all_heads_at_once_equal_head_by_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way that a GPU takes, run here on the CPU."""
    total, values = random_total(4, 21, seed=6), torch.randn(3, 4, 21, 8, generator=torch.Generator().manual_seed(7))
    for recipe in RECIPES.values():
        expected = fuse_values(total, values, [0, 1, 2], 3, recipe)
        with monkeypatch.context() as patch:
            patch.setattr("cliper.ops.fusion.use_cpu_kernels", lambda _: False)
            got = fuse_values(total, values, [0, 1, 2], 3, recipe)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)  # sums in another order
