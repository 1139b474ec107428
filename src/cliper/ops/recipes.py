"""The published versions of the method, as data."""

from dataclasses import dataclass

__all__ = ["RECIPES", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """One published version of early-layer fusion. ``docs/method.md``, section 2.

    Args:
        center: what is subtracted from the symmetric attention, per column: its ``"mean"`` or its maximum (``"peak"``).
        center_weight: the share of it that is subtracted.
        subtract_input: whether a layer's features are subtracted from the last layer's attention output for them.
        propagate_along: ``"columns"``, class maps times attention, or ``"rows"``, attention times class maps.
        include_last_layer: whether the mean over layers includes the last layer.
        mean_weight: weight of that mean.
        clip_to_one: whether each class map is divided by its maximum where that is above one.
    """

    center: str = "mean"
    center_weight: float = 1.0
    subtract_input: bool = False
    propagate_along: str = "columns"
    include_last_layer: bool = True
    mean_weight: float = 1.0
    clip_to_one: bool = False


RECIPES = {
    "conference": Recipe(),
    "preprint": Recipe(propagate_along="rows", include_last_layer=False),
    "preprint-h": Recipe(
        center="peak",
        center_weight=0.2,
        subtract_input=True,
        propagate_along="rows",
        include_last_layer=False,
        mean_weight=0.2,
        clip_to_one=True,
    ),
}
