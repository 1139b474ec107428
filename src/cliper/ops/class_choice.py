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


def select_texts(texts: Tensor, chosen: Tensor, groups: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Leave out the texts of classes that are not chosen.

    Args:
        texts: [T, D] from :func:`.build_text_classifier`, or [R, D] from :func:`.expand_synonyms`.
        chosen: [C] bool, for the first C texts.
        groups: [R] from :func:`.expand_synonyms`, or None.

    Returns:
        The rows that are left, and the text of each among those that are left, or None.
    """
    count = len(texts) if groups is None else int(groups.max()) + 1
    kept = torch.cat([chosen, chosen.new_ones(count - len(chosen))])
    if groups is None:
        return texts[kept], None
    rows = kept[groups]
    return texts[rows], (kept.cumsum(0) - 1)[groups[rows]]
