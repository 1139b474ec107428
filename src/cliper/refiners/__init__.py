"""Refiners: models whose idea of what belongs together sharpens coarse class maps."""

from cliper.refiners.base import Refiner
from cliper.refiners.registry import load_refiner, refiner_names

__all__ = ["Refiner", "load_refiner", "refiner_names"]
