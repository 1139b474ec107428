"""The settings that a checkpoint should run with when a person gives none."""

from __future__ import annotations

from typing import Any

from cliper.checkpoints.resolve import ResolvedCheckpoint
from cliper.checkpoints.validate import read_json
from cliper.settings import Settings, load_preset, load_settings

__all__ = ["recommended_settings"]

_FILE = "settings.json"


def recommended_settings(resolved: ResolvedCheckpoint) -> Settings:
    """Settings for a person's own pictures with this CLIP.

    In this order: ``settings.json`` in a bundled or local folder (what it does not name keeps its default);
    what the registry says; by architecture, those published for ViT-L/14 where patches are of 14 pixels and
    there are at least 24 layers, and for ViT-B/16 otherwise.

    Args:
        resolved: what :func:`cliper.checkpoints.resolve` gave.

    Raises:
        SettingsError: ``settings.json`` cannot be read or has an unknown or impossible setting (it is named).
        CheckpointError: ``config.json`` is missing or cannot be read.

    Example:
        >>> from cliper.checkpoints import resolve
        >>> recommended_settings(resolve("mini", "clip")).scale
        32.0
    """
    # A hub repository's file of that name may be about anything; a folder that a person brings is theirs.
    path = resolved.folder / _FILE
    if resolved.source != "hub" and path.is_file():
        return load_settings(path)
    if resolved.entry is not None and resolved.entry.recommended is not None:
        return load_preset(resolved.entry.recommended).settings
    return load_preset(_by_architecture(resolved)).settings


def _by_architecture(resolved: ResolvedCheckpoint) -> str:
    config = read_json(resolved.folder / "config.json", "it says what the model is")
    vision = config.get("vision_config") or config.get("vision_config_dict") or {}
    patch, layers = _whole(vision, "patch_size", 32), _whole(vision, "num_hidden_layers", 12)
    return "vit-l-14/voc21" if patch == 14 and layers >= 24 else "vit-b-16/voc21"


def _whole(values: Any, name: str, default: int) -> int:
    value = values.get(name, default) if isinstance(values, dict) else default
    return value if isinstance(value, int) else default
