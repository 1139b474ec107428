"""From a name to a folder: an alias, a hub name or a local folder, downloaded if needed."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cliper.checkpoints.clip_config import ACTIVATIONS
from cliper.checkpoints.download import cached_folder, download_folder, download_reason
from cliper.checkpoints.registry import (
    KINDS,
    HubRepo,
    RegistryEntry,
    check_kind,
    entries,
    entry_of_repo,
    find_entry,
    nearest_aliases,
    replacement_for,
)
from cliper.checkpoints.validate import MARKER_FILES, is_weight_file, weight_paths
from cliper.errors import CheckpointError, DownloadError

__all__ = ["ResolvedCheckpoint", "resolve", "split_activation"]

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
_LOG = logging.getLogger("cliper.checkpoints")
_OPTIONS = {"clip": "--model", "diffusion": "--refiner", "dino": "--refiner", "vae": "--refine-vae"}


@dataclass(frozen=True)
class ResolvedCheckpoint:
    """A checkpoint on this machine.

    Args:
        name: the alias in its usual spelling, or the name that was given.
        kind: one of :data:`.KINDS`.
        folder: of the files, in the layout of ``transformers``, ``diffusers`` or OpenCLIP; or a weight file of a CLIP.
        source: ``"bundled"``, ``"hub"`` or ``"local"``.
        repo: the hub repository; None unless ``source`` is ``"hub"``.
        revision: its commit; None unless ``source`` is ``"hub"``.
        entry: of the registry; None for an unknown checkpoint.
        activation: of a CLIP's layers, where its name ends with it; else None.
    """

    name: str
    kind: str
    folder: Path
    source: str
    repo: str | None = None
    revision: str | None = None
    entry: RegistryEntry | None = None
    activation: str | None = None

    def __str__(self) -> str:
        """Name, origin, folder and size: ``mini (bundled, 45 MB in /...)``."""
        megabytes = sum(path.stat().st_size for path in weight_paths(self.folder, self.kind)) / 1e6
        return f"{self.name} ({self.source}, {megabytes:.0f} MB in {self.folder})"


def resolve(name: str | os.PathLike[str], kind: str, *, download: bool = True) -> ResolvedCheckpoint:
    """Find a checkpoint by its name, and download it if it is not on this machine.

    The network is not used for a bundled or local folder, or for what is in the cache. The files are not checked
    here: see :func:`cliper.checkpoints.check_folder`.

    Args:
        name: a local folder or, of OpenCLIP's or OpenAI's weights, a file, to which ``@gelu`` or ``@quick_gelu`` may be
            appended (an existing one comes first; ``~`` is the home folder), an alias (``"ViT-B/16"``,
            ``"sd2.1"``, in any case), or a hub name (``"owner/name"``, or ``"owner/name@revision"``). A hub name in
            the registry is taken at the registry's pinned commit; ``@main`` asks for the newest.
        kind: one of :data:`.KINDS`: what the checkpoint must be.
        download: whether it may be downloaded; if not, a checkpoint that is not on this machine is an error.

    Raises:
        CheckpointError: no such alias, folder or repository, or one of another kind.
        DownloadError: it could not be downloaded; the message says how to bring a folder.

    Example:
        >>> resolve("mini", "clip").source
        'bundled'
    """
    check_kind(kind)
    text = os.fspath(name).strip()
    entry = find_entry(text)
    path = Path(os.path.expanduser(text))  # noqa: PTH111 (it raises nothing for a name of an unknown user)
    # A folder that happens to be named like an alias (an output folder "mini", say) must not hide the alias.
    if text and os.path.exists(path) and (entry is None or (path / MARKER_FILES[kind]).is_file()):  # noqa: PTH110
        if not path.is_dir() and not is_weight_file(path, kind):
            raise CheckpointError(f"{text}: expected the folder of {KINDS[kind]}, got a file")
        return ResolvedCheckpoint(text, kind, path, "local")
    place, activation = split_activation(text)
    if activation is not None and (os.path.isdir(place) or is_weight_file(Path(place), kind)):  # noqa: PTH112
        return replace(resolve(place, kind, download=False), name=text, activation=activation)
    if entry is None and (not _HUB_NAME.fullmatch(text) or _resembles_alias(text)):
        raise CheckpointError(
            f"no checkpoint is called {text!r} (try {', '.join(nearest_aliases(text, kind))}), and there is no such "
            f"folder; expected an alias, a hub name (owner/name) or a folder with {KINDS[kind]}"
        )
    repo, _, revision = text.partition("@")
    known = entry or entry_of_repo(repo)
    if known is not None and known.kind != kind:
        others = ", ".join(item.alias for item in entries(kind))
        raise CheckpointError(
            f"{known.alias}: expected {KINDS[kind]} (one of {others}, a hub name or a folder), got {KINDS[known.kind]}"
        )
    if entry is not None and entry.bundled:
        return ResolvedCheckpoint(entry.alias, kind, Path(__file__).parent / entry.bundled, "bundled", entry=entry)
    if known is None or revision:
        sources = [HubRepo(repo, revision or None)]
    else:
        sources = [item for item in known.sources if entry or item.repo.lower() == repo.lower()]
    return _from_hub(entry.alias if entry else text, kind, sources, known, download)


def split_activation(name: str) -> tuple[str, str | None]:
    """A name without the activation that is appended to it, and the activation or None.

    Example:
        >>> split_activation("ViT-B-32.pt@quick_gelu")
        ('ViT-B-32.pt', 'quick_gelu')
    """
    place, _, activation = name.rpartition("@")
    return (os.path.expanduser(place), activation) if activation in ACTIVATIONS else (name, None)  # noqa: PTH111


def _from_hub(
    name: str, kind: str, sources: Sequence[HubRepo], entry: RegistryEntry | None, download: bool
) -> ResolvedCheckpoint:
    """The first source that is in the cache, or the first that can be downloaded."""
    from huggingface_hub.errors import HfHubHTTPError

    for source in sources:
        if folder := cached_folder(source, kind):
            return ResolvedCheckpoint(name, kind, folder, "hub", source.repo, folder.name, entry)
    first = sources[0].repo
    if alias := replacement_for(first):
        raise DownloadError(
            f"{name}: {first} is no longer on the Hugging Face hub; use {alias!r}, which downloads a public copy of "
            f"it, or give a folder that you have"
        )
    # A Stable Diffusion repository holds the same weights five times over, so only what is needed is named.
    some = ' --include "*.json" --include "*.txt" --include "*/*model.safetensors"' if kind == "diffusion" else ""
    hint = (
        f"download it on a machine with network: `hf download {first}{some} --local-dir DIR`, then give "
        f"{_OPTIONS[kind]} DIR"
    )
    size = f" (about {entry.megabytes} MB)" if entry else ""
    if not download:
        raise DownloadError(
            f"{name}: {first} is not on this machine; fetch it with `cliper models fetch {name}`{size}, or {hint}"
        )
    failures: list[str] = []
    for source in sources:
        try:
            folder = download_folder(source, kind)
        except CheckpointError as error:  # the repository exists, but is not what is needed
            if entry is None:
                raise
            failures.append(str(error))
        except Exception as error:  # of huggingface_hub, its HTTP library, its Rust part, or the system
            failures.append(f"{source}: {download_reason(error, source.repo)}")
            if not isinstance(error, HfHubHTTPError):
                break  # no network, a full disk: no other repository would help
        else:
            if failures:
                _LOG.warning("%s: %s; using %s instead", name, "; ".join(failures), source)
            return ResolvedCheckpoint(name, kind, folder, "hub", source.repo, folder.name, entry)
    near = ", ".join(nearest_aliases(name, kind))
    neither = "" if entry else f"there is no folder {name!r} either (aliases to try: {near}); "
    raise DownloadError(f"{name}: could not download it{size} from {'; '.join(failures)}; {neither}{hint}")


def _resembles_alias(text: str) -> bool:
    """Whether a name such as ``ViT-B/61`` is a misspelled alias rather than a hub name."""
    owner = text.partition("/")[0].lower()
    return any(owner == item.alias.lower().partition("/")[0] for item in entries() if "/" in item.alias)
