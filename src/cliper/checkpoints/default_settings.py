"""The settings that a checkpoint runs with when none are given."""

from __future__ import annotations

from cliper.checkpoints.clip import read_clip_config
from cliper.checkpoints.clip_config import ClipConfig
from cliper.checkpoints.resolve import ResolvedCheckpoint
from cliper.settings import Settings, load_preset, load_settings

__all__ = ["recommended_settings", "resolve_recipe"]


def recommended_settings(resolved: ResolvedCheckpoint) -> Settings:
    """Settings for arbitrary images with this CLIP.

    The first of: ``settings.json`` in a bundled or local folder (what it does not name keeps its default); the preset
    that the registry names; that of the family, for an encoder beside CLIP; by architecture, the preset of ViT-L/14 for
    patches of 14 pixels and at least 24 layers, and of ViT-B/16 otherwise.

    Raises:
        SettingsError: ``settings.json`` cannot be read or has an unknown or impossible setting (it is named).
        CheckpointError: ``config.json`` is missing or cannot be used.

    Example:
        >>> from cliper.checkpoints import resolve
        >>> recommended_settings(resolve("mini", "clip")).logit_scale
        32.0
    """
    # A file of that name in a hub repository may be about anything.
    path = resolved.folder / "settings.json"
    if resolved.source != "hub" and path.is_file():
        return load_settings(path)
    if resolved.entry is not None and resolved.entry.recommended is not None:
        return load_preset(resolved.entry.recommended).settings
    config = read_clip_config(resolved.folder, resolved.activation)
    if config.preset is not None:
        return load_preset(config.preset).settings
    vision = config.vision
    large = vision.patch_size == 14 and vision.num_hidden_layers >= 24
    return load_preset("vit-l-14/voc21" if large else "vit-b-16/voc21").settings


def resolve_recipe(recipe: str, resolved: ResolvedCheckpoint) -> str:
    """The recipe of the formulas for a checkpoint: ``"preprint-h"`` for ``"preprint"`` with a ViT-H/14.

    The published code of the preprint treats ViT-H/14 differently. Only its shape distinguishes it.

    Raises:
        CheckpointError: ``config.json`` is missing or cannot be read.
    """
    if recipe != "preprint":
        return recipe
    config = read_clip_config(resolved.folder, resolved.activation)
    vision = config.vision
    shape = (vision.num_hidden_layers, vision.hidden_size, vision.patch_size)
    return "preprint-h" if shape == (32, 1280, 14) and type(config) is ClipConfig else recipe
