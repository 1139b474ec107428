"""How unsure predictions are, without labels."""

import torch
from torch import Tensor

__all__ = ["has_low_entropy", "prediction_entropy"]


def prediction_entropy(probabilities: Tensor) -> Tensor:
    """Entropy of the predictions at the patches of an image, averaged over the patches.

    Args:
        probabilities: [T, P] float32, of T texts at P patches; columns sum to 1.

    Returns:
        A float32 scalar, from 0 to ``log(T)``.
    """
    return -torch.xlogy(probabilities, probabilities).sum(0).mean()


def has_low_entropy(entropies: Tensor) -> Tensor:
    """Which of N predictors have an entropy that is not above the mean of all; at least one has.

    Args:
        entropies: [N] float, N >= 1.

    Returns:
        [N] bool.
    """
    return entropies <= torch.maximum(entropies.mean(), entropies.min())  # the mean of equals may round below them
