"""How a segmentation is measured."""

from cliper.evaluation.confusion import ConfusionMatrix

__all__ = ["ConfusionMatrix"]
