"""Linear maps by oneDNN compared with PyTorch's."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cliper.kernels.linear import linear, packed_linear, transpose_linear_weights


@given(
    lead=st.lists(st.integers(1, 4), min_size=1, max_size=3), inner=st.integers(1, 20), outer=st.integers(1, 20),
    bias=st.booleans(), layout=st.sampled_from(["rows", "columns", "strided"]), seed=st.integers(0, 99),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_linear_of_any_shape_and_layout(
    lead: list[int], inner: int, outer: int, bias: bool, layout: str, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*lead, inner, generator=generator)
    weight = torch.randn(outer, inner, generator=generator)
    if layout == "columns":
        weight = weight.t().contiguous().t()
    if layout == "strided":
        weight = weight.repeat_interleave(3, dim=1)[:, ::3]
    added = torch.randn(outer, generator=generator) if bias else None
    with torch.no_grad():
        got = linear(x, weight, added)
    torch.testing.assert_close(got, F.linear(x, weight, added), atol=1e-5, rtol=1e-5)  # another order of summation


def test_linear_of_a_sliced_input() -> None:
    x, weight = torch.randn(4, 9, 6), torch.randn(5, 6)
    with torch.no_grad():
        torch.testing.assert_close(linear(x[:, 1:], weight), F.linear(x[:, 1:], weight), atol=1e-5, rtol=1e-5)


def test_gradients_are_computed() -> None:
    weight = torch.randn(3, 4, requires_grad=True)
    linear(torch.randn(2, 4), weight).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_is_preserved(dtype: torch.dtype) -> None:
    with torch.no_grad():
        assert linear(torch.ones(2, 3, dtype=dtype), torch.ones(4, 3, dtype=dtype)).dtype == dtype


def test_module_with_transposed_weights_computes_the_same() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 2))
    x = torch.randn(5, 6)
    with torch.no_grad():
        before, weights = module(x), [p.clone() for p in module.parameters()]
        transpose_linear_weights(module)
        assert all(torch.equal(a, b) for a, b in zip(module.parameters(), weights, strict=True))
        torch.testing.assert_close(module(x), before, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_packed_linear_equals_the_product(dtype: torch.dtype) -> None:
    weight, x = torch.randn(70, 33, dtype=dtype), torch.randn(19, 33, dtype=dtype)
    torch.testing.assert_close(packed_linear(weight, 16)(x), x @ weight.T, atol=1e-4, rtol=0)
