"""Refiners: models whose idea of what belongs together sharpens coarse class maps."""

from cliper.refiners.base import Refiner
from cliper.refiners.registry import check_proxy, check_refiner, load_refiner, refiner_checkpoint, refiner_names

__all__ = ["Refiner", "check_proxy", "check_refiner", "load_refiner", "refiner_checkpoint", "refiner_names"]
