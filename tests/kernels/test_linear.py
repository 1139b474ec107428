"""Linear maps by packed weights compared with PyTorch's."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from cliper.kernels.linear import packed_linear


@given(
    lead=st.lists(st.integers(1, 4), min_size=1, max_size=3), inner=st.integers(1, 20), outer=st.integers(1, 20),
    bias=st.booleans(), gelu=st.booleans(), layout=st.sampled_from(["rows", "columns", "strided"]),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_packed_linear_of_any_shape_and_layout(
    lead: list[int], inner: int, outer: int, bias: bool, gelu: bool, layout: str, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*lead, inner, generator=generator)
    weight = torch.randn(outer, inner, generator=generator)
    if layout == "columns":
        weight = weight.t().contiguous().t()
    if layout == "strided":
        weight = weight.repeat_interleave(3, dim=1)[:, ::3]
    added = torch.randn(outer, generator=generator) if bias else None
    expected = F.linear(x, weight, added)
    with torch.no_grad():
        got = packed_linear(weight, 16, added, gelu=gelu)(x)
    # Another order of summation.
    torch.testing.assert_close(got, F.gelu(expected) if gelu else expected, atol=1e-5, rtol=1e-5)


def test_packed_linear_of_a_sliced_input() -> None:
    x, weight = torch.randn(4, 9, 6), torch.randn(5, 6)
    with torch.no_grad():
        got = packed_linear(weight, 8)(x[:, 1:])
    torch.testing.assert_close(got, F.linear(x[:, 1:], weight), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_is_preserved(dtype: torch.dtype) -> None:
    with torch.no_grad():
        assert packed_linear(torch.ones(4, 3, dtype=dtype), 2)(torch.ones(2, 3, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_packed_linear_equals_the_product(dtype: torch.dtype) -> None:
    weight, x = torch.randn(70, 33, dtype=dtype), torch.randn(19, 33, dtype=dtype)
    torch.testing.assert_close(packed_linear(weight, 16)(x), x @ weight.T, atol=1e-4, rtol=0)
