"""Sliding windows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cliper.errors import ShapeError
from cliper.ops import WindowMerger, average_windows, window_grid
from cliper.ops.windows import sum_windows


def published_grid(height: int, width: int, crop: int, stride: int) -> list[tuple[int, int, int, int]]:
    """The loop of the published code."""
    boxes = []
    for i in range(max(height - crop + stride - 1, 0) // stride + 1):
        for j in range(max(width - crop + stride - 1, 0) // stride + 1):
            y2, x2 = min(i * stride + crop, height), min(j * stride + crop, width)
            boxes.append((max(y2 - crop, 0), y2, max(x2 - crop, 0), x2))
    return boxes


sides = st.integers(1, 900)


@settings(deadline=None)
@given(height=sides, width=sides, crop=st.integers(30, 400), stride=st.integers(30, 400))
def test_windows_equal_the_published_ones(height: int, width: int, crop: int, stride: int) -> None:
    published = published_grid(height, width, crop, stride)
    seen = torch.zeros(height, width, dtype=torch.bool)
    for top, bottom, left, right in published:
        seen[top:bottom, left:right] = True
    if seen.all():
        assert [tuple(w) for w in window_grid(height, width, crop, stride)] == published
    else:  # the published code divides by 0 there
        with pytest.raises(ShapeError, match="unseen"):
            window_grid(height, width, crop, stride)


@settings(deadline=None, max_examples=50)
@given(height=sides, width=sides, crop=st.integers(60, 400), share=st.floats(0.2, 1))
def test_windows_are_inside_and_cover_the_image(height: int, width: int, crop: int, share: float) -> None:
    seen = torch.zeros(height, width, dtype=torch.bool)
    for top, bottom, left, right in window_grid(height, width, crop, max(1, int(crop * share))):
        assert 0 <= top < bottom <= height
        assert 0 <= left < right <= width
        assert bottom - top == min(crop, height)
        assert right - left == min(crop, width)
        seen[top:bottom, left:right] = True
    assert seen.all()


@settings(deadline=None)
@given(grid=st.tuples(st.integers(1, 5), st.integers(1, 6)), seed=st.integers(0, 99))
def test_single_window_propagates_by_its_own_attention(grid: tuple[int, int], seed: int) -> None:
    patches = grid[0] * grid[1]
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(2, patches, 3, generator=generator)
    affinity = torch.rand(patches, patches, generator=generator).softmax(-1)
    merger = WindowMerger(2, grid, 3, 16, torch.device("cpu"))
    merger.add(window_grid(grid[0] * 16, grid[1] * 16, 10_000)[0], embeddings, affinity)
    torch.testing.assert_close(merger.merged(), affinity.T @ embeddings, atol=1e-5, rtol=0)  # 1e-5 in the counts


def test_sum_and_mean_over_windows_are_those_of_a_loop() -> None:
    grid, windows = (5, 7), window_grid(5 * 16, 7 * 16, 48, 32)
    values = torch.randn(len(windows), 9, 2, generator=torch.Generator().manual_seed(1))
    total, count = torch.zeros(35, 2), torch.zeros(35, 1)
    for window, value in zip(windows, values, strict=True):
        for index in range(9):
            patch = (window.top // 16 + index // 3) * 7 + window.left // 16 + index % 3
            total[patch] += value[index]
            count[patch] += 1
    assert count.max() > 1
    torch.testing.assert_close(sum_windows(values, windows, grid, 16), total)
    torch.testing.assert_close(average_windows(values, windows, grid, 16), total / count)
