"""The variants that an ablation compares."""

from __future__ import annotations

from collections.abc import Sequence

from cliper.errors import InputError, SettingsError
from cliper.evaluation.task import Variant
from cliper.settings import ATTENTIONS, Settings

__all__ = ["ablation_variants"]


def ablation_variants(
    settings: Settings, attentions: Sequence[str], features: Sequence[bool], refiners: Sequence[str | None]
) -> tuple[Variant, ...]:
    """Every attention with every feature fusion and every refiner.

    Raises:
        SettingsError: an unknown attention.
        InputError: nothing to compare.
    """
    for name in attentions:
        if name not in ATTENTIONS:
            raise SettingsError(f"attention: expected some of {', '.join(ATTENTIONS)}, got {name!r}")
    variants = tuple(
        Variant(
            f"{attention}, feature fusion {'on' if fuse else 'off'}, refiner {refiner or 'none'}",
            settings.replace(attention=attention, fuse_features=fuse),
            refiner,
        )
        for attention in attentions
        for fuse in features
        for refiner in refiners
    )
    if not variants:
        raise InputError("expected at least one attention, feature fusion and refiner to compare, got none")
    return variants
