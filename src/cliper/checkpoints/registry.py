"""The registry of known checkpoints: ``registry.yaml``, whose form is checked by a test."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources

import yaml

from cliper.errors import CheckpointError

__all__ = [
    "KINDS",
    "HubRepo",
    "RegistryEntry",
    "check_kind",
    "entries",
    "entry_of_repo",
    "find_entry",
    "nearest_aliases",
    "replacement_for",
]

KINDS = {
    "clip": "a CLIP checkpoint",
    "diffusion": "a Stable Diffusion pipeline",
    "dino": "a DINO, DINOv2 or DINOv3 checkpoint",
    "vae": "a tiny autoencoder (TAESD)",
}


@dataclass(frozen=True)
class HubRepo:
    """A repository on the Hugging Face hub and a pinned commit, or None for its main branch."""

    repo: str
    revision: str | None

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision[:12]}" if self.revision else self.repo


@dataclass(frozen=True, kw_only=True)
class RegistryEntry:
    """An alias: kind, sources and licence of its weights.

    Args:
        alias: the name that is typed, in its usual spelling; look-ups ignore case.
        kind: one of :data:`.KINDS`.
        title: for lists.
        sources: repositories in the order to try; empty for a bundled checkpoint.
        licence: of the weights.
        megabytes: approximate size of the files that are downloaded, in 10^6 bytes.
        recommended: a preset's name or, for a bundled checkpoint, a settings file; None for refiners.
        note: one sentence for the user.
        bundled: folder inside this package, or None.
        sha256: file name -> checksum, for a bundled checkpoint.
    """

    alias: str
    kind: str
    title: str
    sources: tuple[HubRepo, ...]
    licence: str
    megabytes: int
    recommended: str | None
    note: str
    bundled: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)


def entries(kind: str | None = None) -> tuple[RegistryEntry, ...]:
    """All entries, or those of one kind, in the order of the file.

    Raises:
        CheckpointError: ``kind`` is not one of :data:`KINDS`.

    Example:
        >>> [entry.alias for entry in entries("diffusion")]
        ['sd2.1', 'sd1.5', 'sd1.4', 'sdxl']
    """
    if kind is not None:
        check_kind(kind)
    return tuple(entry for entry in _registry()[0] if kind in (None, entry.kind))


def find_entry(alias: str) -> RegistryEntry | None:
    """The entry of an alias, in upper or lower case; None if there is none.

    Example:
        >>> find_entry("vit-b/16").alias
        'ViT-B/16'
    """
    wanted = alias.strip().lower()
    return next((entry for entry in entries() if entry.alias.lower() == wanted), None)


def entry_of_repo(repo: str) -> RegistryEntry | None:
    """The entry that has this hub repository among its sources, if any."""
    wanted = repo.lower()
    return next((e for e in entries() if any(s.repo.lower() == wanted for s in e.sources)), None)


def replacement_for(repo: str) -> str | None:
    """The alias to use instead of a repository that was deleted from the hub; None for any other.

    Example:
        >>> replacement_for("runwayml/stable-diffusion-v1-5")
        'sd1.5'
    """
    return _registry()[1].get(repo.lower())


def nearest_aliases(name: str, kind: str) -> list[str]:
    """Up to three aliases of a kind that are similar to ``name``, or all of that kind if none is."""
    known = {entry.alias.lower(): entry.alias for entry in entries(kind)}
    near = difflib.get_close_matches(name.strip().lower(), known, n=3, cutoff=0.5)
    return [known[key] for key in near or known]


def check_kind(kind: str) -> None:
    """Check that ``kind`` is one of :data:`KINDS`.

    Raises:
        CheckpointError: it is not.
    """
    if kind not in KINDS:
        raise CheckpointError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")


@functools.cache
def _registry() -> tuple[tuple[RegistryEntry, ...], dict[str, str]]:
    data = yaml.safe_load((resources.files("cliper.checkpoints") / "registry.yaml").read_text(encoding="utf-8"))
    items = (
        {**item, "sources": tuple(HubRepo(**source) for source in item["sources"])} for item in data["checkpoints"]
    )
    return tuple(RegistryEntry(**item) for item in items), data["replacements"]
