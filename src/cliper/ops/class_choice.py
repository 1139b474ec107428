"""Classes that an image is searched for, chosen by how well they fit the whole image.

Source: ``docs/method.md``, section 2, "Choice of classes".
"""

import torch
from torch import Tensor

__all__ = ["choose_classes", "select_texts"]


def choose_classes(scores: Tensor, *, top: int = 0, min_score: float = 0.0) -> Tensor:
    """Which classes are chosen.

    Args:
        scores: [C], of the whole image for each class, not negative.
        top: number of classes with the highest scores; 0 means all. Of equal ones the first are chosen.
        min_score: share of the highest score that a class must have.

    Returns:
        [C] bool, at least one True.

    Example:
        >>> choose_classes(torch.tensor([0.1, 0.6, 0.3]), top=2, min_score=0.4).tolist()
        [False, True, True]
    """
    chosen = scores >= min_score * scores.max()
    if top:
        order = scores.argsort(descending=True, stable=True)
        chosen[order[top:]] = False
    return chosen


def select_texts(texts: Tensor, chosen: Tensor) -> Tensor:
    """The texts [T, D] of :func:`.build_text_classifier` without those of the classes that are not chosen, [C] bool."""
    return torch.cat([texts[: len(chosen)][chosen], texts[len(chosen) :]])
