"""What a client of an export needs to know besides the graphs: ``config.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cliper.images import MAX_PATCHES
from cliper.prompts import load_templates, name_forms, scene_background
from cliper.refiners.self_similarity import MAX_PATCHES as MAX_REFINER_PATCHES
from cliper.refiners.self_similarity import SIDE, SelfSimilarityRefiner

if TYPE_CHECKING:
    from cliper.encoders.clip import ClipEncoder
    from cliper.settings import Settings

__all__ = ["make_config"]


def make_config(
    encoder: ClipEncoder,
    settings: Settings,
    refiner: SelfSimilarityRefiner | None,
    shape: tuple[int, int] | None,
    refiner_shape: tuple[int, int] | None,
) -> dict[str, dict[str, Any]]:
    """The sections of ``config.json``; ``docs/export.md`` describes each entry.

    Arguments are those of :func:`.image_graph`.
    """
    score_threshold, background_threshold = settings.thresholds()
    patch = encoder.patch_size
    sizes = {"pixels": {"patch_size": patch, "short_side": settings.size, "max_patches": MAX_PATCHES, "shape": shape}}
    if refiner is not None:
        max_patches = settings.refine_max_patches or MAX_REFINER_PATCHES
        own = {"patch_size": patch, "short_side": SIDE, "max_patches": max_patches, "shape": refiner_shape}
        sizes["refiner_pixels"] = own
    return {
        "pixels": {"mean": encoder.pixel_mean, "std": encoder.pixel_std},
        "sizes": sizes,
        "text": {"max_tokens": encoder.text.max_tokens, "templates": load_templates(settings.templates)},
        "background": {
            "names": {item.name: sorted(name_forms(item.name)) for item in scene_background([])},
            "similarity": settings.background_similarity,
        },
        "inputs": {"logit_scale": settings.logit_scale, "map_threshold": settings.map_threshold},
        "labels": {
            "score_threshold": score_threshold,
            "background_threshold": background_threshold,
            "normalize": settings.normalize,
        },
    }
