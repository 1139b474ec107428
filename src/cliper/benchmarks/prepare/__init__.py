"""Masks that the data sets' own downloads do not hold, made from those they do.

Each module plans one: which files are made from what. :func:`carry_out` makes them.
"""

from cliper.benchmarks.prepare.cityscapes import cityscapes_masks
from cliper.benchmarks.prepare.coco_object import coco_object_masks
from cliper.benchmarks.prepare.coco_stuff import coco_stuff_masks
from cliper.benchmarks.prepare.context import context_masks
from cliper.benchmarks.prepare.plan import Outcome, Plan, carry_out
from cliper.benchmarks.prepare.voc_aug import voc_aug_masks

__all__ = [
    "Outcome",
    "Plan",
    "carry_out",
    "cityscapes_masks",
    "coco_object_masks",
    "coco_stuff_masks",
    "context_masks",
    "voc_aug_masks",
]
