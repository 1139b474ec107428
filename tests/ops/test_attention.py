"""Attention whose maps are kept, and the ablations."""

import pytest
import torch

from cliper.ops import AttentionAccumulator, ablated_attention
from cliper.ops.attention import attend, merge_heads, split_heads


def tensors(seed: int = 0, shape: tuple[int, ...] = (2, 3, 11, 8)) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=generator) for _ in range(3))


def plain(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    return (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)


def test_output_and_accumulated_maps() -> None:
    summed, expected = AttentionAccumulator(), torch.zeros(2, 3, 11, 11)
    for seed in range(3):
        query, key, value = tensors(seed)
        out = summed.attend(query, key, value)
        attention = plain(query, key)
        expected += attention
        torch.testing.assert_close(out, attention @ value, atol=1e-5, rtol=0)  # sums of 11 numbers of about 1
        torch.testing.assert_close(attend(query, key, value), attention @ value, atol=1e-5, rtol=0)
    torch.testing.assert_close(summed.total, expected, atol=1e-6, rtol=0)


def test_all_heads_at_once_equal_head_by_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way that a GPU takes, run here on the CPU."""
    here, there = AttentionAccumulator(), AttentionAccumulator()
    for seed in range(2):
        given = tensors(seed)
        expected = here.attend(*given)
        with monkeypatch.context() as patch:
            patch.setattr("cliper.ops.attention.use_cpu_kernels", lambda _: False)
            torch.testing.assert_close(there.attend(*given), expected, atol=1e-5, rtol=0)  # another order of sums
    torch.testing.assert_close(there.total, here.total, atol=1e-6, rtol=0)


def test_sum_before_the_first_layer_raises() -> None:
    with pytest.raises(RuntimeError, match="at least one layer"):
        _ = AttentionAccumulator().total


@pytest.mark.parametrize(("kind", "pair"), [("vanilla", (0, 1)), ("q-q", (0, 0)), ("k-k", (1, 1)), ("v-v", (2, 2))])
def test_ablated_attention(kind: str, pair: tuple[int, int]) -> None:
    given = tensors()
    out, mean = ablated_attention(kind, *given)
    attention = plain(given[pair[0]], given[pair[1]])
    torch.testing.assert_close(out, attention @ given[2], atol=1e-5, rtol=0)
    torch.testing.assert_close(mean, attention.mean(1), atol=1e-6, rtol=0)


def test_identity_attention_returns_the_values() -> None:
    query, key, value = tensors()
    out, mean = ablated_attention("identity", query, key, value)
    assert torch.equal(out, value)
    assert torch.equal(mean, torch.eye(11).expand(2, 11, 11))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_output_and_float32_sum(dtype: torch.dtype) -> None:
    summed = AttentionAccumulator()
    out = summed.attend(*(t.to(dtype) for t in tensors()))
    assert out.dtype == dtype
    assert summed.total.dtype == torch.float32


def test_split_and_merge_heads() -> None:
    x = torch.randn(2, 5, 12)
    assert split_heads(x, 3).shape == (2, 3, 5, 4)
    assert torch.equal(merge_heads(split_heads(x, 3)), x)
