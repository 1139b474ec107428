"""Refiners: sharpen coarse class maps by affinities from another network."""

from cliper.refiners.base import Refiner
from cliper.refiners.registry import check_proxy, check_refiner, load_refiner, refiner_checkpoint, refiner_names

__all__ = ["Refiner", "check_proxy", "check_refiner", "load_refiner", "refiner_checkpoint", "refiner_names"]
