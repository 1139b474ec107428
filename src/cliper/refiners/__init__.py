"""Refiners: sharpen coarse class maps by affinities from another network."""

from cliper.refiners.base import Affinity, Refiner
from cliper.refiners.registry import (
    RefinerLoader,
    check_proxy,
    check_refiner,
    load_refiner,
    refiner_checkpoint,
    refiner_names,
)
from cliper.refiners.smoothing import smooth_maps

__all__ = [
    "Affinity",
    "Refiner",
    "RefinerLoader",
    "check_proxy",
    "check_refiner",
    "load_refiner",
    "refiner_checkpoint",
    "refiner_names",
    "smooth_maps",
]
