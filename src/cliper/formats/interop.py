"""What other libraries hold a segmentation in, without a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cliper.errors import MissingExtraError

__all__ = ["to_supervision", "to_transformers"]


def to_transformers(
    labels: npt.NDArray[Any], classes: Sequence[str], confidence: Sequence[float]
) -> list[dict[str, Any]]:
    """A ``label``, ``score`` and ``mask`` for each class that was found, as transformers' pipeline gives them.

    Args:
        labels: [H, W] integers, 0 is background, i + 1 is ``classes[i]``.
        classes: C names.
        confidence: C numbers.

    Example:
        >>> (found,) = to_transformers(np.array([[0, 2]]), ["dog", "cat"], [0.1, 0.9])
        >>> found["label"], found["score"], found["mask"].getpixel((1, 0))
        ('cat', 0.9, 255)
    """
    return [
        {
            "label": classes[label - 1],
            "score": float(confidence[label - 1]),
            "mask": Image.fromarray(np.where(labels == label, np.uint8(255), np.uint8(0))),
        }
        for label in _found(labels)
    ]


def to_supervision(labels: npt.NDArray[Any], classes: Sequence[str], confidence: Sequence[float]) -> Any:
    """``supervision.Detections`` with a mask and a box for each class that was found.

    Args:
        labels: [H, W] integers, 0 is background, i + 1 is ``classes[i]``.
        classes: C names.
        confidence: C numbers.

    Returns:
        Detections; ``class_id`` counts from 0, ``data["class_name"]`` has the names. None found are none in it.

    Raises:
        MissingExtraError: supervision is not installed.
    """
    try:
        import supervision
    except ImportError:
        raise MissingExtraError(
            "expected the package supervision, which is not installed; pip install 'cliper[supervision]'"
        ) from None
    found = _found(labels)
    if not found:
        return supervision.Detections.empty()
    masks = np.stack([labels == label for label in found])
    return supervision.Detections(
        xyxy=supervision.mask_to_xyxy(masks).astype(np.float32),
        mask=masks,
        confidence=np.array([confidence[label - 1] for label in found], dtype=np.float32),
        class_id=np.array([label - 1 for label in found]),
        data={"class_name": np.array([classes[label - 1] for label in found])},
    )


def _found(labels: npt.NDArray[Any]) -> list[int]:
    return [int(label) for label in np.unique(labels) if label]
