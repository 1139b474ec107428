"""What differs between the published versions of the method."""

from dataclasses import dataclass

__all__ = ["RECIPES", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """One published version of early-layer fusion. ``docs/method.md``, section 2.

    Args:
        center: what is taken off the symmetric attention, per column: its ``"mean"`` or its ``"peak"``.
        center_weight: the share of it that is taken off.
        subtract_input: whether a layer's own input is taken off the last layer's attention output.
        spread: ``"columns"``, class maps times attention, or ``"rows"``, attention times class maps.
        last_in_mean: whether the last layer takes part in the mean over layers.
        early_weight: weight of that mean.
        cap: whether each class map is divided by its maximum where that is above one.
    """

    center: str = "mean"
    center_weight: float = 1.0
    subtract_input: bool = False
    spread: str = "columns"
    last_in_mean: bool = True
    early_weight: float = 1.0
    cap: bool = False


RECIPES = {
    "conference": Recipe(),
    "preprint": Recipe(spread="rows", last_in_mean=False),
    "preprint-h": Recipe(
        center="peak",
        center_weight=0.2,
        subtract_input=True,
        spread="rows",
        last_in_mean=False,
        early_weight=0.2,
        cap=True,
    ),
}
