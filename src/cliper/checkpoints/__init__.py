"""Checkpoints: from a name to a complete folder of weights, and the settings to use it with.

>>> from cliper.checkpoints import check_folder, recommended_settings, resolve
>>> found = resolve("mini", "clip")
>>> check_folder(found.folder, found.kind)
>>> recommended_settings(found).size
336

:func:`resolve` downloads what is not on this machine, :func:`check_folder` is the cheap check before loading, and
:func:`verify_checkpoint` reads all weights. Importing this package is cheap: torch, transformers, diffusers and
huggingface_hub are imported in the functions that use them.
"""

from cliper.checkpoints.default_settings import recommended_settings, resolve_recipe
from cliper.checkpoints.registry import HubRepo, RegistryEntry, entries, find_entry
from cliper.checkpoints.resolve import ResolvedCheckpoint, resolve
from cliper.checkpoints.validate import check_folder
from cliper.checkpoints.verify import VerifyReport, verify_checkpoint, weight_hashes

__all__ = [
    "HubRepo",
    "RegistryEntry",
    "ResolvedCheckpoint",
    "VerifyReport",
    "check_folder",
    "entries",
    "find_entry",
    "recommended_settings",
    "resolve",
    "resolve_recipe",
    "verify_checkpoint",
    "weight_hashes",
]
