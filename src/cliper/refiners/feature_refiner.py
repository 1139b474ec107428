"""The base class of refiners whose affinity is the similarity of patch features."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from cliper.refiners.affinity import propagate, propagate_to_neighbors
from cliper.refiners.base import Affinity, Refiner
from cliper.settings import Settings

__all__ = ["FeatureRefiner"]


class FeatureRefiner(Refiner):
    """Applies the affinity of patch features by one product, or by a solve, as ``refine_propagation`` says."""

    product_options: ClassVar[Mapping[str, float]] = {}
    """Arguments of :func:`.propagate` that are not the method's."""

    def _apply(self, affinity: Affinity, maps: Tensor, settings: Settings) -> Tensor:
        assert isinstance(affinity.values, Tensor)
        if settings.refine_propagation == "solve":
            return propagate_to_neighbors(
                maps,
                affinity.values,
                affinity.grid,
                self.patch_size,
                neighbors=settings.refine_neighbors,
                alpha=settings.refine_alpha,
            )
        return propagate(maps, affinity.values, affinity.grid, **self.product_options)
