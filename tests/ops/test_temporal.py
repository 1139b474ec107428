"""Running means of class maps over a video's frames."""

from __future__ import annotations

import pytest
import torch

from cliper.errors import ShapeError
from cliper.ops import temporal_mean, unchanged_weights


def test_mean_over_unchanged_frames() -> None:
    frames = torch.rand(5, 2, 3, 4)
    mean, count = frames[0], torch.ones(3, 4)
    for frame in frames[1:]:
        mean, count = temporal_mean(frame, mean, count, torch.ones(3, 4), 100)
    torch.testing.assert_close(mean, frames.mean(0))
    assert (count == 5).all()


def test_old_frames_lose_weight() -> None:
    mean, count = torch.ones(1, 1, 1), torch.ones(1, 1)
    for _ in range(20):
        mean, count = temporal_mean(torch.zeros(1, 1, 1), mean, count, torch.ones(1, 1), 4)
    assert count.item() == 4
    assert mean.item() == pytest.approx(1 / 4 * (3 / 4) ** 17)  # a mean of four frames, then 17 steps of 1/4


def test_changed_cell_takes_over_nothing() -> None:
    before, after = torch.zeros(3, 8, 8), torch.zeros(3, 8, 8)
    after[:, :4, :4] = 1
    weights = unchanged_weights(before, after, (2, 2))
    assert weights[0, 0] < 1e-12
    assert torch.equal(weights[1:].flatten(), torch.ones(2))
    mean, count = temporal_mean(torch.ones(1, 2, 2), torch.zeros(1, 2, 2), torch.full((2, 2), 9.0), weights, 10)
    assert mean[0, 0, 0] == 1
    assert mean[0, 1, 1] == pytest.approx(0.1)
    assert count.tolist() == [[1, 10], [10, 10]]


def test_cut_takes_over_nothing_even_where_colours_are_equal() -> None:
    before, after = torch.zeros(3, 8, 8), torch.ones(3, 8, 8)
    after[:, :4, :4] = 0
    assert not unchanged_weights(before, after, (2, 2)).any()


def test_noise_of_a_camera_counts_as_unchanged() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 64, 64, generator=generator)
    before, after = (image + 6 / 255 * torch.randn(image.shape, generator=generator) for _ in range(2))
    assert unchanged_weights(before, after, (4, 4)).min() > 0.8


def test_frames_of_two_sizes() -> None:
    with pytest.raises(ShapeError, match="expected two frames"):
        unchanged_weights(torch.zeros(3, 4, 4), torch.zeros(3, 4, 5), (2, 2))
