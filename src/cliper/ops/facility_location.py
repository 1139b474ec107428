"""Choose a few embeddings that represent many."""

import torch
from torch import Tensor

__all__ = ["facility_location"]

# Two embeddings that are each other's nearest have equal gains. Rounding must not decide between them.
_ROUNDING = 1e-9


def facility_location(embeddings: Tensor, count: int) -> Tensor:
    """Choose embeddings by greedy facility location.

    Each step adds the embedding that most increases the sum, over all embeddings, of the largest cosine to a chosen
    one; the first of equals. The first chosen is the medoid. The greedy choice reaches at least ``1 - 1/e`` of the best
    sum, counted from cosines of -1 (Nemhauser, Wolsey and Fisher 1978, for submodular functions).

    Args:
        embeddings: [N, D], rows of length 1.
        count: how many to choose; all if N is smaller.

    Returns:
        [min(count, N)] int64, positions in the order in which they were chosen.
    """
    rows = embeddings.cpu().double()  # not every device has float64
    similarity = rows @ rows.t()
    largest = torch.full_like(similarity[:1], -1.0)  # of each embedding to a chosen one, so far
    chosen: list[int] = []
    for _ in range(min(count, len(embeddings))):
        gains = (similarity - largest).clamp_min(0).sum(1)
        gains[chosen] = -1.0
        best = int((gains >= gains.max() - _ROUNDING).nonzero()[0])
        chosen.append(best)
        largest = torch.maximum(largest, similarity[best])
    return torch.tensor(chosen, dtype=torch.int64, device=embeddings.device)
