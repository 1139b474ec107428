"""Conjugate gradients against direct solves."""

from __future__ import annotations

import torch

from cliper.ops.conjugate_gradient import conjugate_gradient

# The relative residual at which the solver stops is 1e-6; the condition number of the matrices here is below 100.
TOLERANCE = 1e-4


def positive_definite(*shape: int, seed: int = 0) -> torch.Tensor:
    root = torch.randn(*shape, shape[-1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.mT / shape[-1] + 0.1 * torch.eye(shape[-1], dtype=torch.float64)


def test_equals_a_direct_solve_for_batches_of_systems() -> None:
    matrix = positive_definite(2, 40)
    target = torch.randn(2, 40, 5, dtype=torch.float64)
    got = conjugate_gradient(
        lambda x: matrix.float() @ x, target.float(), torch.zeros(2, 40, 5), dim=-2, iterations=100
    )
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), torch.linalg.solve(matrix, target), atol=TOLERANCE, rtol=TOLERANCE)


def test_exact_start_and_zero_target_stay() -> None:
    """Divisions by a residual of 0 give no NaN, also where other systems go on."""
    matrix, target = positive_definite(20), torch.randn(20, 3, dtype=torch.float64)
    target[:, 0] = 0
    start = torch.zeros_like(target)
    start[:, 1] = torch.linalg.solve(matrix, target)[:, 1]
    got = conjugate_gradient(lambda x: matrix @ x, target, start, dim=0, iterations=60)
    torch.testing.assert_close(got, torch.linalg.solve(matrix, target), atol=1e-5, rtol=1e-5)
    assert torch.equal(got[:, 0], torch.zeros_like(got[:, 0]))


def test_iterations_bound_the_products_and_no_argument_changes() -> None:
    matrix, target, start = positive_definite(30), torch.randn(30, dtype=torch.float64), torch.ones(30).double()
    before, products = (target.clone(), start.clone()), []

    def multiply(x: torch.Tensor) -> torch.Tensor:
        products.append(x)
        return matrix @ x

    conjugate_gradient(multiply, target, start, dim=0, iterations=4)
    assert len(products) == 5  # one for the start
    assert torch.equal(target, before[0])
    assert torch.equal(start, before[1])
