"""The variants of ``cliper evaluate --ablate-refiner``: a refiner with each of its options."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cliper.evaluation.task import Variant
from cliper.model_config import ModelConfig

__all__ = ["refiner_variants"]

_EDGES: dict[str, Any] = {"edge_weight": 30.0, "edge_sigma": 0.05}
_SOLVE: dict[str, dict[str, Any]] = {
    "solve": {"refine_propagation": "solve"},
    "solve, 50 neighbours": {"refine_propagation": "solve", "refine_neighbors": 50},
}
_NO_NOISE = {"refine_noise": False}
_UPPER: dict[str, Any] = {"refine_layers": ("upper_blocks",)}
_BALANCE = {"refine_balance": 15}

# Kind of refiner -> its options: label -> settings that change.
_OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "none": {},
    "self": _SOLVE,
    "dino": _SOLVE,
    "diffusion": {
        "no noise": _NO_NOISE,
        "both upper blocks": _UPPER,
        "doubly stochastic": _BALANCE,
        "no noise, both upper blocks, doubly stochastic": {**_NO_NOISE, **_UPPER, **_BALANCE},
    },
}


def refiner_variants(models: ModelConfig, kind: str) -> tuple[Variant, ...]:
    """No refiner and the refiner, each with and without edge-aware smoothing, and the refiner with each of its options.

    Args:
        models: with the refiner and settings that the options change. Of these ``edge_weight`` is ignored, and a tiny
            ``refine_vae`` is that of the variant ``"tiny VAE"`` only.
        kind: of the refiner, as :func:`cliper.refiners.refiner_kind` gives it.
    """
    name = models.refiner or "none"
    ways: dict[str, tuple[str | None, dict[str, Any]]] = {"none": (None, {}), "none, edges": (None, _EDGES)}
    if kind != "none":
        ways |= {name: (models.refiner, {}), f"{name}, edges": (models.refiner, _EDGES)}
        ways |= {f"{name}, {label}": (models.refiner, changes) for label, changes in _OPTIONS[kind].items()}
        if kind == "diffusion":
            given = models.settings.refine_vae
            ways[f"{name}, tiny VAE"] = (models.refiner, {"refine_vae": "taesd" if given == "full" else given})
    base = models.settings.replace(edge_weight=0, refine_vae="full")
    return tuple(
        Variant(label, replace(models, refiner=refiner, settings=base.replace(**changes)))
        for label, (refiner, changes) in ways.items()
    )
