"""Conjugate gradients for many systems at once."""

from collections.abc import Callable

from torch import Tensor

__all__ = ["conjugate_gradient"]

# Divisors of systems that are solved exactly: their residual is 0.
_MIN_DIVISOR = 1e-30


def conjugate_gradient(
    multiply: Callable[[Tensor], Tensor],
    target: Tensor,
    start: Tensor,
    *,
    dim: int | tuple[int, ...],
    iterations: int,
    tolerance: float = 1e-6,
) -> Tensor:
    """Solve ``A x = target`` for a symmetric positive definite A.

    Source: Hestenes and Stiefel, 1952. It stops after ``iterations``, or earlier if the residual of every system is at
    most ``tolerance`` times the length of its target.

    Args:
        multiply: A times a tensor of the shape of ``target``.
        target: floating point.
        start: a guess at x, of the same shape.
        dim: dimensions of one system; along the others are independent systems.
        iterations: maximum number of products with A, besides one for ``start``.
        tolerance: see above.

    Returns:
        x, of the shape and dtype of ``target``.

    Example:
        >>> import torch
        >>> conjugate_gradient(lambda x: 2 * x, torch.ones(3, 4), torch.zeros(3, 4), dim=0, iterations=1)[0]
        tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """
    x = start.clone()
    residual = target - multiply(x)
    direction = residual.clone()
    square = residual.square().sum(dim, keepdim=True)
    enough = target.square().sum(dim, keepdim=True) * tolerance**2
    for _ in range(iterations):
        if bool((square <= enough).all()):
            break
        product = multiply(direction)
        step = square / (direction * product).sum(dim, keepdim=True).clamp_min(_MIN_DIVISOR)
        x.addcmul_(step, direction)
        residual.addcmul_(step, product, value=-1)
        previous, square = square, residual.square().sum(dim, keepdim=True)
        direction.mul_(square / previous.clamp_min(_MIN_DIVISOR)).add_(residual)
    return x
