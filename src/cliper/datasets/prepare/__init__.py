"""Masks that the published downloads do not contain, made from the annotations that they contain.

Each module plans the masks of one data set; :func:`write_masks` makes them.
"""

from cliper.datasets.prepare.cityscapes import cityscapes_masks
from cliper.datasets.prepare.coco import coco_object_masks, coco_stuff_masks
from cliper.datasets.prepare.masks import MaskPlan, WriteSummary, write_masks
from cliper.datasets.prepare.pascal import context_masks, voc_aug_masks

__all__ = [
    "MaskPlan",
    "WriteSummary",
    "cityscapes_masks",
    "coco_object_masks",
    "coco_stuff_masks",
    "context_masks",
    "voc_aug_masks",
    "write_masks",
]
