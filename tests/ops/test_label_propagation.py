"""Label propagation against a plain statement of it and a direct solve in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cliper.errors import ShapeError
from cliper.ops import neighbor_weights, propagate_labels

GRID = (6, 9)
# The solver stops at a relative residual of 1e-5; with alpha 0.95 the error is at most 40 times larger.
TOLERANCE = 4e-4


def features(*shape: int, seed: int = 0) -> Tensor:
    """Patch features of which most have a positive similarity."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) + 0.5


def plain_weights(one: Tensor, grid: tuple[int, int], neighbors: int, exponent: float, decay: float) -> Tensor:
    unit = one.double() / one.double().norm(dim=1, keepdim=True)
    weights = torch.zeros(len(one), len(one), dtype=torch.float64)
    for i in range(len(one)):
        similar = sorted((j for j in range(len(one)) if j != i), key=lambda j: -float(unit[i] @ unit[j]))
        for j in similar[:neighbors]:
            (y, x), (v, u) = divmod(i, grid[1]), divmod(j, grid[1])
            distance = ((y - v) ** 2 + (x - u) ** 2) ** 0.5
            weight = max(float(unit[i] @ unit[j]), 0) ** exponent * 2.718281828459045 ** (-decay * distance)
            weights[i, j] += weight / 2
            weights[j, i] += weight / 2
    return weights


def plain_solve(y: Tensor, weights: Tensor, alpha: float) -> Tensor:
    root = weights.sum(1).clamp_min(1e-30).rsqrt()
    matrix = torch.eye(len(weights), dtype=torch.float64) - alpha * root[:, None] * weights * root
    solved = torch.linalg.solve(matrix, torch.cat([y.double(), torch.ones(len(y), 1, dtype=torch.float64)], 1))
    return solved[:, :-1] / solved[:, -1:]


@pytest.mark.parametrize("neighbors", [1, 7, 1000])
def test_weights_equal_the_plain_formula(neighbors: int) -> None:
    one = features(54, 16)
    got = neighbor_weights(one, GRID, neighbors=neighbors, exponent=3, decay=0.16)
    # float32 cosines, to the third power
    torch.testing.assert_close(got.double(), plain_weights(one, GRID, neighbors, 3, 0.16), atol=1e-6, rtol=0)


def test_weights_are_symmetric_not_negative_and_without_loops() -> None:
    got = neighbor_weights(features(2, 54, 16) - 0.5, GRID, neighbors=10)
    assert torch.equal(got, got.mT)
    assert bool((got >= 0).all())
    assert not bool(got.diagonal(0, -2, -1).any())


@pytest.mark.parametrize("alpha", [0.5, 0.95, 0.99])
def test_equals_a_direct_solve(alpha: float) -> None:
    y, one = torch.rand(54, 4), features(54, 16)
    got = propagate_labels(y, neighbor_weights(one, GRID, neighbors=7), alpha)
    assert got.dtype == torch.float32
    expected = plain_solve(y, plain_weights(one, GRID, 7, 3, 0.16), alpha)
    torch.testing.assert_close(got.double(), expected, atol=TOLERANCE, rtol=0)


def test_sparse_weights_equal_dense_ones() -> None:
    y, one = torch.rand(54, 4), features(54, 16)
    sparse = neighbor_weights(one, GRID, neighbors=7, max_dense=50)
    dense = neighbor_weights(one, GRID, neighbors=7)
    assert sparse.layout == torch.sparse_coo
    torch.testing.assert_close(sparse.to_dense(), dense, atol=1e-7, rtol=0)
    torch.testing.assert_close(propagate_labels(y, sparse), propagate_labels(y, dense), atol=TOLERANCE, rtol=0)


def test_batches_equal_single_images() -> None:
    y, some = torch.rand(3, 54, 4), features(3, 54, 16)
    together = propagate_labels(y, neighbor_weights(some, GRID, neighbors=7))
    for one, own, got in zip(y, some, together, strict=True):
        alone = propagate_labels(one, neighbor_weights(own, GRID, neighbors=7))
        torch.testing.assert_close(got, alone, atol=TOLERANCE, rtol=0)


def test_values_stay_in_range_and_constants_stay() -> None:
    y = torch.rand(54, 3)
    y[:, 0] = 0.7
    got = propagate_labels(y, neighbor_weights(features(54, 16), GRID, neighbors=7), 0.95)
    torch.testing.assert_close(got[:, 0], y[:, 0], atol=TOLERANCE, rtol=0)
    assert bool((got >= y.amin(0) - TOLERANCE).all())
    assert bool((got <= y.amax(0) + TOLERANCE).all())


def test_alpha_0_gives_the_labels() -> None:
    y = torch.rand(54, 3)
    assert torch.equal(propagate_labels(y, neighbor_weights(features(54, 16), GRID), 0.0), y)


def test_linear_in_the_labels() -> None:
    weights, (a, b) = neighbor_weights(features(54, 16), GRID, neighbors=7), torch.rand(2, 54, 3)
    together = propagate_labels(2 * a - b, weights)
    apart = 2 * propagate_labels(a, weights) - propagate_labels(b, weights)
    torch.testing.assert_close(together, apart, atol=4 * TOLERANCE, rtol=0)


def test_symmetric_up_to_the_scale_of_a_patch() -> None:
    """The solution of the formula is G Y with a symmetric G; here each row is divided by its sum."""
    rows = propagate_labels(torch.eye(54), neighbor_weights(features(54, 16), GRID, neighbors=7), 0.9).double()
    # r_i / r_j = rows_ji / rows_ij, so that the product around each triangle is 1.
    i, j, k = torch.randint(54, (3, 500), generator=torch.Generator().manual_seed(1))
    around = rows[i, j] * rows[j, k] * rows[k, i]
    torch.testing.assert_close(around, rows[j, i] * rows[k, j] * rows[i, k], rtol=1e-2, atol=1e-12)


def test_highest_class_is_that_of_the_published_formula() -> None:
    y, weights = torch.rand(54, 4), neighbor_weights(features(54, 16), GRID, neighbors=7)
    root = weights.double().sum(1).rsqrt()
    matrix = torch.eye(54, dtype=torch.float64) - 0.95 * root[:, None] * weights * root
    published = torch.linalg.solve(matrix, y.double())
    first, second = published.topk(2, 1).values.unbind(1)
    clear = (first - second) > 1e-3 * first
    assert torch.equal(propagate_labels(y, weights).argmax(1)[clear], published.argmax(1)[clear])


def test_patch_without_neighbours_keeps_its_values() -> None:
    y, weights = torch.rand(6, 2), torch.zeros(6, 6)
    weights[0, 1] = weights[1, 0] = 1
    got = propagate_labels(y, weights)
    torch.testing.assert_close(got[2:], y[2:], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(propagate_labels(y[:1], neighbor_weights(torch.rand(1, 4), (1, 1))), y[:1])


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"expected \[..., 54, D\] for a grid of 6x9, got \[50, 4\]"):
        neighbor_weights(torch.rand(50, 4), GRID)
    with pytest.raises(ShapeError, match=r"got \[5, 2\], \[4, 4\]"):
        propagate_labels(torch.rand(5, 2), torch.rand(4, 4))
