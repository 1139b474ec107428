"""The chain of self-attention maps: golden values, laws, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cliper.errors import SettingsError, ShapeError
from cliper.ops import compensate
from cliper.ops.compensation import QueryKey, compensate_query_key, resize_query_key
from golden import load_golden
from oracle import reference

CASES = {"chain": ("chain", 0), "mean": ("mean", 0), "select1": ("selected", 1)}

# float32 against float32 with sums in another order; the values are about 1 and are sums of up to 4096 terms.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_golden("refine")


@pytest.mark.parametrize("case", CASES)
def test_golden_maps_from_attention_maps(golden: dict[str, Tensor], case: str) -> None:
    attention = (golden["query"] @ golden["key"].transpose(-1, -2) * 1.3).softmax(-1).flatten(0, 1)
    mode, index = CASES[case]
    refined = compensate(golden["maps"], attention, 0.1, mode, index)
    # What the issue asks for; it is met to 3e-7.
    torch.testing.assert_close(refined, golden[f"refined.{case}"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_golden_maps_from_queries_and_keys(golden: dict[str, Tensor], case: str) -> None:
    heads = [QueryKey(q, k, 1.3) for q, k in zip(golden["query"], golden["key"], strict=True)]
    mode, index = CASES[case]
    refined = compensate_query_key(golden["maps"], heads, 0.1, mode, index)
    difference = (refined - golden[f"refined.{case}"]).abs()
    # Of 67 million values that are compared with the threshold a few lie within rounding of it, and fall on the other
    # side when a product is summed in another order. Each changes one pixel of one map, by less than the threshold over
    # the number of values that its row keeps (about 100). What a chain leaves of that depends on its maps; with these
    # it is less than 1e-4.
    assert difference.quantile(0.999) < 1e-5
    assert difference.max() < (1e-4 if mode == "chain" else 5e-3)


def random_attention(count: int, tokens: int, seed: int, sharpness: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(count, tokens, tokens, generator=generator) * sharpness).softmax(-1)


def random_maps(classes: int, height: int, width: int, seed: int) -> Tensor:
    return torch.rand(classes, height, width, generator=torch.Generator().manual_seed(seed))


examples = settings(max_examples=25, deadline=None)


@examples
@given(
    side=st.integers(2, 7),
    count=st.integers(1, 5),
    classes=st.integers(1, 4),
    threshold=st.sampled_from([0.0, 0.1, 0.35, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_right_to_left_equals_left_to_right(side: int, count: int, classes: int, threshold: float, seed: int) -> None:
    attention = random_attention(count, side * side, seed)
    maps = random_maps(classes, 3, 5, seed)
    expected = reference.refine(maps, attention, threshold)
    torch.testing.assert_close(compensate(maps, attention, threshold), expected, atol=TOLERANCE, rtol=0)


@examples
@given(seed=st.integers(0, 10**6), count=st.integers(1, 4), threshold=st.floats(0, 1))
def test_modes_equal_explicit_products(seed: int, count: int, threshold: float) -> None:
    attention, maps = random_attention(count, 25, seed), random_maps(2, 5, 5, seed)
    alone = [compensate(maps, attention[i : i + 1], threshold) for i in range(count)]
    for i in range(count):
        selected = compensate(maps, attention, threshold, "selected", i)
        torch.testing.assert_close(selected, alone[i], atol=TOLERANCE, rtol=0)
    mean = compensate(maps, attention, threshold, "mean")
    torch.testing.assert_close(mean, torch.stack(alone).mean(0), atol=TOLERANCE, rtol=0)
    x = maps
    for i in reversed(range(count)):
        x = compensate(x, attention[i : i + 1], threshold)
    torch.testing.assert_close(compensate(maps, attention, threshold), x, atol=TOLERANCE, rtol=0)


@examples
@given(seed=st.integers(0, 10**6), threshold=st.floats(0, 1))
def test_normalised_rows_sum_to_one(seed: int, threshold: float) -> None:
    # Every column's maximum is kept unless the threshold is above what it is divided to; with 1e-5 beside maxima
    # that are far larger, rows that keep anything of size 1 sum to 1 within 1e-5.
    attention, ones = random_attention(3, 16, seed), torch.ones(1, 4, 4)
    refined = compensate(ones, attention, min(threshold, 0.9), "selected")
    kept = attention[0] / (attention[0].amax(0) + 1e-5) >= min(threshold, 0.9)
    sums = torch.where(kept, attention[0] / (attention[0].amax(0) + 1e-5), 0).sum(1)
    torch.testing.assert_close(refined.flatten(), sums / (sums + 1e-5), atol=TOLERANCE, rtol=0)
    assert (refined <= 1 + TOLERANCE).all()


@examples
@given(seed=st.integers(0, 10**6))
def test_compensation_is_linear_in_the_maps(seed: int) -> None:
    attention, a, b = random_attention(3, 16, seed), random_maps(1, 4, 4, seed), random_maps(1, 4, 4, seed + 1)
    together = compensate(torch.cat([a, b, a + 2 * b]), attention, 0.2)
    torch.testing.assert_close(together[2], together[0] + 2 * together[1], atol=TOLERANCE, rtol=0)


def test_values_equal_to_the_threshold_are_kept() -> None:
    # Columns of one value: divided by their maximum all are 1, less 1e-5 over the value.
    attention = torch.full((1, 4, 4), 0.25)
    value = float(attention[0, 0, 0] * (1 / (attention[0, 0, 0] + 1e-5)))
    kept = compensate(torch.ones(1, 2, 2), attention, value)
    assert kept.min() > 0.99
    above = compensate(torch.ones(1, 2, 2), attention, value + 1e-6)
    assert above.max() == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtype_is_preserved_and_arguments_are_not_changed(dtype: torch.dtype) -> None:
    attention, maps = random_attention(3, 64, 0).to(dtype), random_maps(3, 4, 6, 0).to(dtype)
    before = attention.clone(), maps.clone()
    refined = compensate(maps, attention, 0.1)
    assert refined.dtype == dtype
    assert torch.equal(attention, before[0])
    assert torch.equal(maps, before[1])
    # Inside all is float32: only inputs and the result are rounded to the half types (8 and 11 bits).
    expected = reference.refine(maps.float(), attention.float(), 0.1)
    tolerance = {torch.bfloat16: 4e-3, torch.float16: 5e-4}.get(dtype, TOLERANCE)
    torch.testing.assert_close(refined.float(), expected, atol=tolerance, rtol=0)


def test_batch_of_maps_shares_the_attention() -> None:
    attention = random_attention(2, 36, 1)
    batch = torch.stack([random_maps(3, 4, 5, seed) for seed in (1, 2)])
    refined = compensate(batch, attention, 0.1)
    assert refined.shape == (2, 3, 6, 6)
    for one, maps in zip(refined, batch, strict=True):
        torch.testing.assert_close(one, compensate(maps, attention, 0.1), atol=TOLERANCE, rtol=0)


def test_attention_may_be_any_iterable() -> None:
    attention, maps = random_attention(3, 16, 2), random_maps(2, 3, 3, 2)
    expected = compensate(maps, attention, 0.1)
    for given_as in (list(attention), iter(attention), tuple(attention)):
        assert torch.equal(compensate(maps, given_as, 0.1), expected)


def test_grid_that_is_not_square() -> None:
    attention, maps = random_attention(2, 4 * 6, 3), random_maps(2, 3, 3, 3)
    refined = compensate(maps, attention, 0.1, size=(4, 6))
    x = F.interpolate(maps[None], size=(4, 6), mode="bilinear", align_corners=False)[0].flatten(1).T
    for a in attention.flip(0):
        a = a / (a.amax(0) + 1e-5)
        a = torch.where(a < 0.1, 0, a)
        x = a / (a.sum(1, keepdim=True) + 1e-5) @ x
    torch.testing.assert_close(refined, x.T.reshape(2, 4, 6), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("tokens", "largest"), [(64, 0), (64, 1 << 30), (1024, 0), (1024, 1 << 30)])
def test_queries_and_keys_equal_attention_maps(monkeypatch: pytest.MonkeyPatch, tokens: int, largest: int) -> None:
    """Whether a map is kept between its two passes or made twice."""
    monkeypatch.setattr("cliper.ops.compensation.MAP_BYTES", largest)
    monkeypatch.setattr("cliper.ops.compensation.BLOCK_BYTES", 4 * tokens * 48)  # the last block is shorter
    generator = torch.Generator().manual_seed(4)
    layers = [QueryKey(*torch.randn(2, 3, tokens, 8, generator=generator).unbind(0), 0.4) for _ in range(2)]
    before = [(h.query.clone(), h.key.clone()) for h in layers]
    maps = random_maps(3, 5, 5, 4)
    attention = torch.cat([(q @ k.transpose(1, 2) * s).softmax(-1) for q, k, s in layers])
    refined = compensate_query_key(maps, layers, 0.05)
    torch.testing.assert_close(refined, compensate(maps, attention, 0.05), atol=TOLERANCE, rtol=0)
    assert all(torch.equal(h.query, q) and torch.equal(h.key, k) for h, (q, k) in zip(layers, before, strict=True))


def test_only_one_map_is_in_memory() -> None:
    """The chain of n maps takes no more memory than one of them."""
    tokens, heads = 1024, 6
    layers = [QueryKey(torch.randn(heads, tokens, 8), torch.randn(heads, tokens, 8), 0.3)]
    with torch.profiler.profile(profile_memory=True) as profile:
        compensate_query_key(torch.rand(2, 8, 8), layers, 0.1)
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest <= tokens * tokens * 4
    held, peak = 0, 0
    for event in sorted(profile.events(), key=lambda e: e.time_range.start):
        held += event.self_cpu_memory_usage
        peak = max(peak, held)
    # One map, a block's worth of scores (4 MB here is one more), and small change.
    assert peak < 3 * tokens * tokens * 4


GOOD = torch.rand(2, 3, 3)


@pytest.mark.parametrize(
    ("maps", "attention", "kwargs", "error", "words"),
    [
        (GOOD, torch.rand(2, 16, 9), {}, ShapeError, "square"),
        (GOOD, torch.rand(16, 16), {}, ShapeError, r"\[n, S\*S, S\*S\]"),
        (GOOD, torch.rand(1, 12, 12), {}, ShapeError, "size="),
        (GOOD, torch.rand(1, 12, 12), {"size": (3, 5)}, ShapeError, "3x5"),
        (GOOD, [torch.rand(16, 16), torch.rand(9, 9)], {}, ShapeError, "one size"),
        (GOOD, [], {}, ShapeError, "at least one"),
        (torch.rand(3, 3), torch.rand(1, 16, 16), {}, ShapeError, r"\[C, h, w\]"),
        (torch.ones(1, 3, 3, dtype=torch.int64), torch.rand(1, 16, 16), {}, ShapeError, "floats"),
        (torch.rand(0, 3, 3), torch.rand(1, 16, 16), {}, ShapeError, r"\[0, 3, 3\]"),
        (GOOD, torch.rand(1, 16, 16), {"mode": "sum"}, SettingsError, "chain, mean, selected"),
        (GOOD, torch.rand(1, 16, 16), {"threshold": 1.5}, SettingsError, "from 0 to 1"),
        (GOOD, torch.rand(1, 16, 16), {"threshold": float("nan")}, SettingsError, "from 0 to 1"),
        (GOOD, torch.rand(2, 16, 16), {"mode": "selected", "map_index": 2}, SettingsError, "0 to 1; got 2"),
    ],
)
def test_bad_input(maps: Tensor, attention: object, kwargs: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        compensate(maps, attention, **{"threshold": 0.1} | kwargs)


def test_queries_and_keys_of_wrong_shape_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\[H, T, d\]"):
        compensate_query_key(GOOD, [QueryKey(torch.rand(2, 16, 4), torch.rand(2, 9, 4), 1.0)], 0.1)
    layers = [QueryKey(torch.rand(2, n, 4), torch.rand(2, n, 4), 1.0) for n in (16, 9)]
    with pytest.raises(ShapeError, match="one resolution, got 9 and 16 tokens"):
        compensate_query_key(GOOD, layers, 0.1)


def plain_balanced(attention: Tensor, threshold: float, rounds: int) -> Tensor:
    """A thresholded map whose columns and rows are divided by their sums in turn."""
    a = attention.double()
    a = a / (a.amax(0) + 1e-5)
    a = torch.where(a < threshold, 0, a)
    for _ in range(rounds):
        a = a / a.sum(0).clamp_min(1e-30)
        a = a / a.sum(1, keepdim=True).clamp_min(1e-30)
    return a


@pytest.mark.parametrize("rounds", [1, 2, 15])
@pytest.mark.parametrize("stored", [True, False])
def test_balanced_maps_equal_plain_sinkhorn(monkeypatch: pytest.MonkeyPatch, rounds: int, stored: bool) -> None:
    monkeypatch.setattr("cliper.ops.compensation.BLOCK_BYTES", 1 << 12)  # several blocks of rows
    monkeypatch.setattr("cliper.ops.compensation.MAP_BYTES", 256 << 20 if stored else 0)
    generator = torch.Generator().manual_seed(5)
    query, key = torch.randn(2, 2, 64, 8, generator=generator)
    attention = (query @ key.mT).softmax(-1)
    maps = random_maps(3, 8, 8, seed=6)
    balanced = [plain_balanced(one, 0.05, rounds) for one in attention]
    expected = (balanced[0] @ balanced[1] @ maps.double().flatten(1).T).T.reshape(3, 8, 8)
    tolerance = 2e-5 * rounds  # of the factors of rows and columns in float32, which each round uses again
    got = compensate_query_key(maps, [QueryKey(query, key, 1.0)], 0.05, balance=rounds)
    torch.testing.assert_close(got.double(), expected, atol=tolerance, rtol=0)
    got = compensate(maps, attention, 0.05, balance=rounds)
    torch.testing.assert_close(got.double(), expected, atol=tolerance, rtol=0)


def test_balanced_maps_are_doubly_stochastic() -> None:
    """Applied to each unit vector, a map gives its columns: they sum to 1, as rows do."""
    attention = random_attention(1, 16, seed=7, sharpness=1.0)
    columns = compensate(torch.eye(16).reshape(16, 4, 4), attention, 0.0, balance=50)
    torch.testing.assert_close(columns.sum((1, 2)), torch.ones(16), atol=1e-3, rtol=0)
    torch.testing.assert_close(columns.sum(0), torch.ones(4, 4), atol=1e-4, rtol=0)


def test_rows_and_columns_without_values_give_0() -> None:
    attention = torch.eye(16)[None].clone()
    attention[0, 3, 3] = 0
    maps = random_maps(2, 4, 4, seed=8)
    got = compensate(maps, attention, 0.1, balance=15)
    expected = maps.clone()
    expected.flatten(1)[:, 3] = 0
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)


def test_resized_query_and_key_keep_constants_and_other_resolutions_stay() -> None:
    layer = QueryKey(torch.ones(2, 12, 4), torch.randn(2, 12, 4), 0.5)
    resized = resize_query_key(layer, (3, 4), (6, 8))
    assert torch.equal(resized.query, torch.ones(2, 48, 4))
    expected = F.interpolate(layer.key[0].T.reshape(1, 4, 3, 4), (6, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(resized.key[0], expected[0].flatten(1).T, atol=1e-6, rtol=0)
    assert resized.scale == 0.5
    assert resize_query_key(layer, (3, 4), (3, 4)) is layer
