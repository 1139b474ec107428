"""Results as the objects of other libraries, without a file."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from cliper.errors import MissingExtraError
from cliper.formats.base import LabeledImage, bounded_confidence
from cliper.formats.regions import class_regions

__all__ = ["to_supervision", "to_transformers"]


def to_transformers(result: LabeledImage) -> list[dict[str, Any]]:
    """``label``, ``score`` and ``mask`` of each class that was found, like transformers' image segmentation pipeline.

    Masks are PIL images of mode L, 255 inside.
    """
    confidence = bounded_confidence(result.confidence).tolist()
    return [
        {
            "label": result.classes[region.label - 1],
            "score": confidence[region.label - 1],
            "mask": Image.fromarray(np.where(result.labels == region.label, np.uint8(255), np.uint8(0))),
        }
        for region in class_regions(result.labels)
    ]


def to_supervision(result: LabeledImage) -> Any:
    """``supervision.Detections`` with a mask and a box for each class that was found.

    ``class_id`` counts from 0, ``data["class_name"]`` has the names; empty if no class was found.

    Raises:
        MissingExtraError: supervision is not installed.
    """
    try:
        import supervision
    except ImportError:
        raise MissingExtraError(
            "expected the package supervision, which is not installed; pip install 'cliper[supervision]'"
        ) from None
    class_ids = [region.label - 1 for region in class_regions(result.labels)]
    if not class_ids:
        return supervision.Detections.empty()
    masks = np.stack([result.labels == class_id + 1 for class_id in class_ids])
    return supervision.Detections(
        xyxy=supervision.mask_to_xyxy(masks).astype(np.float32),
        mask=masks,
        confidence=bounded_confidence(result.confidence)[class_ids].astype(np.float32),
        class_id=np.array(class_ids),
        data={"class_name": np.array([result.classes[class_id] for class_id in class_ids])},
    )
