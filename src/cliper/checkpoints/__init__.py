"""Checkpoints: from a name to a whole folder of weights, and what to know about it.

>>> from cliper.checkpoints import check_folder, recommended_settings, resolve
>>> found = resolve("mini", "clip")
>>> check_folder(found.folder, found.kind)
>>> recommended_settings(found).size
336

``registry.yaml`` is the list of known checkpoints, :func:`resolve` fetches what is not there,
:func:`check_folder` is the cheap check before loading and :func:`verify` the thorough one. Importing this is
cheap: torch, transformers, diffusers and huggingface_hub are imported inside the functions that use them.
"""

from cliper.checkpoints.default_settings import recommended_settings
from cliper.checkpoints.registry import RegistryEntry, Source, entries, find_entry
from cliper.checkpoints.resolve import ResolvedCheckpoint, resolve
from cliper.checkpoints.validate import check_folder
from cliper.checkpoints.verify import VerifyReport, verify, weight_hashes

__all__ = [
    "RegistryEntry",
    "ResolvedCheckpoint",
    "Source",
    "VerifyReport",
    "check_folder",
    "entries",
    "find_entry",
    "recommended_settings",
    "resolve",
    "verify",
    "weight_hashes",
]
