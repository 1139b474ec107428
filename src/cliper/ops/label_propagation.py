"""Label propagation: class maps spread over the graph of each patch's nearest neighbours, to the end.

Source: Stojnic et al., "LPOSS: Label Propagation Over Patches and Pixels for Open-vocabulary Semantic Segmentation",
CVPR 2025, arXiv 2503.19777; Zhou et al., "Learning with Local and Global Consistency", NIPS 2003; ``docs/method.md``,
section 3, "Label propagation".
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.errors import ShapeError
from cliper.ops.conjugate_gradient import conjugate_gradient

__all__ = ["neighbor_weights", "propagate_labels"]

# Similarities are computed in blocks of rows of about this many numbers.
_BLOCK = 1 << 22
# Up to this many patches the weights are a dense matrix (256 MiB), whose products are faster.
MAX_DENSE = 8192
# The error of a solution is below 1e-4 of it: a residual is at most 1 / (1 - alpha) times smaller than the error.
_ITERATIONS, _TOLERANCE = 50, 1e-5


@torch.no_grad()
def neighbor_weights(
    features: Tensor,
    grid: tuple[int, int],
    *,
    neighbors: int = 400,
    exponent: float = 3.0,
    decay: float = 0.16,
    max_dense: int = MAX_DENSE,
) -> Tensor:
    """Weights of the graph of nearest neighbours.

    The weight of patch i and one of its ``neighbors`` most similar other patches j is
    ``max(similarity, 0)^exponent * exp(-decay * distance)``; all other weights are 0. With V the matrix of them, the
    result is ``(V + V^T) / 2``.

    Args:
        features: [..., P, D], one row for each patch; the similarity is the cosine.
        grid: (S, S') with P = S * S'; distances are Euclidean, in patches.
        neighbors: k, the number of nearest neighbours; at most P - 1 are used.
        exponent: see above.
        decay: see above.
        max_dense: number of patches above which the result of features [P, D] is sparse.

    Returns:
        [..., P, P] float32, symmetric, the diagonal 0; a sparse COO tensor [P, P] above ``max_dense`` patches.

    Raises:
        ShapeError: features that do not fit the grid.
    """
    patches = grid[0] * grid[1]
    if features.ndim < 2 or features.shape[-2] != patches:
        raise ShapeError(
            f"features: expected [..., {patches}, D] for a grid of {grid[0]}x{grid[1]}, got {list(features.shape)}"
        )
    unit = F.normalize(features.float(), dim=-1)
    rows = max(1, _BLOCK // patches)
    near = [
        _nearest(unit, slice(start, start + rows), grid[1], min(neighbors, patches - 1), exponent, decay)
        for start in range(0, patches, rows)
    ]
    values, indices = (torch.cat(parts, -2) for parts in zip(*near, strict=True))
    halves = values.mul_(0.5)
    if patches <= max_dense or features.ndim > 2:
        weights = halves.new_zeros(*halves.shape[:-1], patches).scatter_(-1, indices, halves)
        weights.mT.scatter_add_(-1, indices, halves)  # V^T / 2, a third of the time of a sum of whole matrices
        return weights
    own = torch.arange(patches, device=unit.device).repeat_interleave(indices.shape[1])
    pairs = torch.stack([torch.cat([own, indices.ravel()]), torch.cat([indices.ravel(), own])])
    both = halves.ravel().repeat(2)
    return torch.sparse_coo_tensor(pairs, both, (patches, patches), check_invariants=True).coalesce()


@torch.no_grad()
def propagate_labels(labels: Tensor, weights: Tensor, alpha: float = 0.95) -> Tensor:
    """Solve ``(I - alpha D^-1/2 W D^-1/2) X = Y``, D the row sums of W, and scale each patch to the range of Y.

    The solution of the formula is larger where a patch has more and stronger neighbours, by a factor that is the same
    for all classes. It is divided by the solution for Y = 1, so that the result is a weighted mean of Y in each patch:
    constant maps stay, values stay in the range of Y, and which class is highest in a patch does not change.

    Source: arXiv 2503.19777; ``docs/method.md``, section 3, "Label propagation".

    Args:
        labels: Y, [..., P, C].
        weights: W, [..., P, P] float32, symmetric and not negative; dense, or sparse for labels [P, C].
        alpha: 0 (the result is Y) to below 1 (each component of the graph gets one value).

    Returns:
        [..., P, C] float32.

    Raises:
        ShapeError: labels and weights do not fit together.

    Example:
        >>> weights = neighbor_weights(torch.randn(48, 16), (6, 8), neighbors=5)
        >>> propagate_labels(torch.rand(48, 2), weights).shape
        torch.Size([48, 2])
    """
    if labels.ndim < 2 or weights.shape != (*labels.shape[:-2], labels.shape[-2], labels.shape[-2]):
        raise ShapeError(f"expected labels [P, C] and weights [P, P], got {list(labels.shape)}, {list(weights.shape)}")
    values = torch.cat([labels.float(), torch.ones_like(labels[..., :1], dtype=torch.float32)], -1)
    degree = weights @ values[..., -1:]
    scale = degree.clamp_min(1e-30).rsqrt()  # a patch without neighbours has no effect on others and keeps its values

    def multiply(x: Tensor) -> Tensor:
        return torch.addcmul(x, scale, weights @ (x * scale), value=-alpha)

    start = values / (1 - alpha)  # the solution where Y is constant and all row sums of W are equal
    x = conjugate_gradient(multiply, values, start, dim=-2, iterations=_ITERATIONS, tolerance=_TOLERANCE)
    return x[..., :-1] / x[..., -1:]


def _nearest(
    unit: Tensor, rows: slice, width: int, neighbors: int, exponent: float, decay: float
) -> tuple[Tensor, Tensor]:
    """Weights and indices [..., R, k] of the nearest neighbours of some patches."""
    similarity = unit[..., rows, :] @ unit.mT
    similarity.diagonal(rows.start, -2, -1).fill_(-torch.inf)  # a patch is no neighbour of itself
    values, indices = similarity.topk(neighbors, sorted=False)
    own = torch.arange(rows.start, rows.start + similarity.shape[-2], device=unit.device)[:, None]
    down = indices // width - own // width
    right = indices % width - own % width
    distance = torch.hypot(down.float(), right.float())
    return values.clamp_min_(0).pow_(exponent).mul_(distance.mul_(-decay).exp_()), indices
