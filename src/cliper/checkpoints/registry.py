"""The registry of known checkpoints, as data (``registry.yaml``) read strictly.

Nothing here touches the network or the disk beyond that one file; :mod:`cliper.checkpoints.resolve` turns an
entry into a folder.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import yaml

from cliper.errors import CheckpointError

__all__ = [
    "KINDS",
    "RegistryEntry",
    "Source",
    "check_kind",
    "entries",
    "entry_of_repo",
    "find_entry",
    "nearest_aliases",
    "parse",
    "replacement_for",
]

KINDS = {
    "clip": "a CLIP checkpoint",
    "diffusion": "a Stable Diffusion pipeline",
    "dino": "a DINO or DINOv2 checkpoint",
}

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Source:
    """One place on the Hugging Face hub: a repository and a pinned commit, or None for its main branch."""

    repo: str
    revision: str | None


@dataclass(frozen=True, kw_only=True)
class RegistryEntry:
    """What an alias stands for.

    Args:
        alias: the name a person types, in its usual spelling; look-ups ignore case.
        kind: ``"clip"``, ``"diffusion"`` or ``"dino"``.
        title: for lists.
        sources: where it can be fetched, in the order to try; empty for a bundled checkpoint.
        licence: of the weights.
        megabytes: approximate size of the files that are fetched, in 10^6 bytes.
        recommended: a preset's name or, for a bundled checkpoint, a settings file; None for refiners.
        note: one sentence for a person.
        bundled: folder inside this package, or None.
        sha256: file name -> checksum, for a bundled checkpoint.
    """

    alias: str
    kind: str
    title: str
    sources: tuple[Source, ...]
    licence: str
    megabytes: int
    recommended: str | None
    note: str
    bundled: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)


def entries(kind: str | None = None) -> tuple[RegistryEntry, ...]:
    """All entries, or those of one kind, in the order of the file.

    Raises:
        CheckpointError: ``kind`` is not a kind.

    Example:
        >>> [entry.alias for entry in entries("diffusion")]
        ['sd2.1', 'sd1.5', 'sd1.4']
    """
    if kind is not None:
        check_kind(kind)
    return tuple(entry for entry in _registry()[0] if kind in (None, entry.kind))


def find_entry(alias: str) -> RegistryEntry | None:
    """The entry of an alias, whatever its case; None if there is none.

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
    """The alias to use instead of a repository that has vanished from the hub; None for any other.

    Example:
        >>> replacement_for("runwayml/stable-diffusion-v1-5")
        'sd1.5'
    """
    return _registry()[1].get(repo.lower())


def nearest_aliases(name: str, kind: str) -> list[str]:
    """Up to three aliases of a kind that look like ``name``, or all of that kind if none does."""
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
    text = (resources.files("cliper.checkpoints") / "registry.yaml").read_text(encoding="utf-8")
    return parse(yaml.safe_load(text))


def parse(data: Any) -> tuple[tuple[RegistryEntry, ...], dict[str, str]]:
    """Entries and vanished repositories from the parsed file.

    Raises:
        CheckpointError: an unknown or missing key, a value of the wrong form, an alias given twice.
    """
    top = _keys(data, "registry", {"checkpoints", "replacements"}, set())
    found = tuple(_entry(item, f"registry entry {index}") for index, item in enumerate(top["checkpoints"]))
    aliases = [entry.alias.lower() for entry in found]
    for alias in aliases:
        if aliases.count(alias) > 1:
            raise CheckpointError(f"registry: the alias {alias!r} is there twice")
    vanished = {str(repo).lower(): str(alias) for repo, alias in top["replacements"].items()}
    for repo, alias in vanished.items():
        if alias.lower() not in aliases:
            raise CheckpointError(f"registry: {repo!r} points to {alias!r}, which is not an alias")
    return found, vanished


def _entry(data: Any, origin: str) -> RegistryEntry:
    required = {"alias", "kind", "title", "sources", "licence", "megabytes", "recommended", "note"}
    values = _keys(data, origin, required, {"bundled", "sha256"})
    origin = f"registry entry {values['alias']!r}"
    for name in ("alias", "kind", "title", "licence", "note"):
        if not isinstance(values[name], str) or not values[name].strip():
            raise CheckpointError(f"{origin}: {name}: expected a text, got {values[name]!r}")
    check_kind(values["kind"])
    size = values["megabytes"]
    if isinstance(size, bool) or not isinstance(size, int) or size <= 0:
        raise CheckpointError(f"{origin}: megabytes: expected a whole number above 0, got {size!r}")
    if values["recommended"] is not None and not isinstance(values["recommended"], str):
        raise CheckpointError(f"{origin}: recommended: expected a text or null, got {values['recommended']!r}")
    sources = tuple(_source(item, origin) for item in values["sources"])
    sums = values.get("sha256", {})
    if bool(sources) == bool(values.get("bundled")):
        raise CheckpointError(f"{origin}: expected either sources or a bundled folder")
    for name, value in sums.items():
        if not isinstance(value, str) or not _SHA256.fullmatch(value):
            raise CheckpointError(f"{origin}: sha256 of {name}: expected 64 hexadecimal digits, got {value!r}")
    return RegistryEntry(**{**values, "sources": sources, "sha256": dict(sums)})


def _source(data: Any, origin: str) -> Source:
    values = _keys(data, f"{origin}: source", {"repo", "revision"}, set())
    repo, revision = values["repo"], values["revision"]
    if not isinstance(repo, str) or not _REPO.fullmatch(repo):
        raise CheckpointError(f"{origin}: repo: expected 'owner/name', got {repo!r}")
    if revision is not None and not (isinstance(revision, str) and _COMMIT.fullmatch(revision)):
        raise CheckpointError(f"{origin}: revision: expected a commit of 40 digits or null, got {revision!r}")
    return Source(repo, revision)


def _keys(data: Any, origin: str, required: set[str], optional: set[str]) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise CheckpointError(f"{origin}: expected keys and values, got {type(data).__name__}")
    if missing := sorted(required - set(data)):
        raise CheckpointError(f"{origin}: {missing[0]!r} is missing")
    if unknown := sorted(set(data) - required - optional, key=str):
        raise CheckpointError(f"{origin}: unknown key {unknown[0]!r}")
    return {str(key): value for key, value in data.items()}
