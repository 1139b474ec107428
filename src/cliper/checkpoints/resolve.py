"""From a name to a folder: an alias, a hub name or a local folder, fetched if need be."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

from cliper.checkpoints.download import Failure, cached_folder, download_folder, explain, manual_download_hint
from cliper.checkpoints.files import MARKER_FILES
from cliper.checkpoints.registry import (
    KINDS,
    RegistryEntry,
    Source,
    check_kind,
    entries,
    entry_of_repo,
    find_entry,
    nearest_aliases,
    replacement_for,
)
from cliper.errors import CheckpointError, DownloadError

__all__ = ["ResolvedCheckpoint", "resolve"]

_HUB_NAME = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w./-]+))?")
_LOG = logging.getLogger("cliper.checkpoints")


@dataclass(frozen=True)
class ResolvedCheckpoint:
    """A checkpoint that lies on this machine.

    Args:
        name: the alias in its usual spelling, or what was given.
        kind: ``"clip"``, ``"diffusion"`` or ``"dino"``.
        folder: where the files are, in ``transformers``' or ``diffusers``' own layout.
        source: ``"bundled"``, ``"hub"`` or ``"local"``.
        repo: the hub repository it came from; None unless ``source`` is ``"hub"``.
        revision: the commit it is at; None unless ``source`` is ``"hub"``.
        entry: what the registry says of it; None for what the registry does not know.
    """

    name: str
    kind: str
    folder: Path
    source: str
    repo: str | None = None
    revision: str | None = None
    entry: RegistryEntry | None = None


def resolve(name: str | os.PathLike[str], kind: str, *, download: bool = True) -> ResolvedCheckpoint:
    """Find a checkpoint by its name and fetch it if it is not there yet.

    Nothing is asked of the network for a bundled or local folder or for what is already in the cache. What is
    inside the folder is not judged here: see :func:`cliper.checkpoints.check_folder`.

    Args:
        name: a local folder (one that exists wins; ``~`` is your home), an alias (``"ViT-B/16"``,
            ``"sd2.1"``, any case), or a hub name (``"owner/name"``, or ``"owner/name@revision"``). A hub name
            that the registry knows is taken at the registry's pinned commit; ``@main`` asks for the newest.
        kind: ``"clip"``, ``"diffusion"`` or ``"dino"``: what the checkpoint has to be.
        download: whether it may be fetched; if not, what is not there is an error.

    Raises:
        CheckpointError: no such alias, folder or repository, or one of another kind.
        DownloadError: it could not be fetched; the message says how to bring a folder.

    Example:
        >>> resolve("mini", "clip").source
        'bundled'
    """
    check_kind(kind)
    text = os.fspath(name).strip()
    entry = find_entry(text)
    path = _existing(text)
    # A folder named like an alias by accident (an output folder "mini", say) must not hide the alias.
    if path is not None and (entry is None or (path / MARKER_FILES[kind]).is_file()):
        if not path.is_dir():
            raise CheckpointError(f"{text}: expected the folder of {KINDS[kind]}, got a file")
        return ResolvedCheckpoint(text, kind, path, "local")
    if entry is not None:
        _check_entry_kind(entry, kind)
        if entry.bundled:
            folder = Path(__file__).parent / entry.bundled
            return ResolvedCheckpoint(entry.alias, kind, folder, "bundled", entry=entry)
        return _from_hub(entry.alias, kind, entry.sources, entry, download)
    match = _HUB_NAME.fullmatch(text)
    if match is None or _is_like_alias(text):
        raise CheckpointError(_unknown(text, kind))
    repo, revision = match["repo"], match["revision"]
    entry = entry_of_repo(repo)
    if entry is not None:
        _check_entry_kind(entry, kind)
    if entry is not None and revision is None:
        known = tuple(source for source in entry.sources if source.repo.lower() == repo.lower())
        return _from_hub(text, kind, known, entry, download)
    # A revision that a person asks for is not silently replaced by another.
    return _from_hub(text, kind, (Source(repo, revision),), entry, download, replace=False)


def _from_hub(
    name: str,
    kind: str,
    sources: tuple[Source, ...],
    entry: RegistryEntry | None,
    download: bool,
    *,
    replace: bool = True,
) -> ResolvedCheckpoint:
    def found(source: Source, folder: Path) -> ResolvedCheckpoint:
        return ResolvedCheckpoint(name, kind, folder, "hub", source.repo, folder.name, entry)

    for source in sources:
        if folder := cached_folder(source, kind):
            return found(source, folder)
    first = sources[0].repo
    if instead := replacement_for(first):
        raise DownloadError(
            f"{name}: {first} is no longer on the Hugging Face hub; use {instead!r}, which fetches a public "
            f"copy of it, or give a folder that you have"
        )
    size = f" (about {entry.megabytes} MB)" if entry else ""
    if not download:
        raise DownloadError(
            f"{name}: {first} is not on this machine; fetch it with `cliper models fetch {name}`{size}, or "
            f"{manual_download_hint(first, kind)}"
        )
    tries = [item for source in sources for item in (_with_main(source) if replace else (source,))]
    failures: list[str] = []
    while tries:
        source = tries.pop(0)
        try:
            folder = download_folder(source, kind)
        except DownloadError:
            raise
        except CheckpointError as error:  # the repository is there, and is not what is needed
            if entry is None:
                raise
            failure = Failure("repository", str(error))
        except Exception as error:  # the hub's own, httpx's, the system's, its Rust part's
            failure = explain(error, source.repo)
        else:
            if failures:
                _LOG.warning("%s: %s; using %s instead", name, "; ".join(failures), _at(source))
            return found(source, folder)
        failures.append(f"{_at(source)}: {failure.reason}")
        if failure.scope == "local":
            break
        if failure.scope == "repository":
            tries = [item for item in tries if item.repo != source.repo]
    for source in sources if replace else ():
        # Without network, another commit of the same repository is better than nothing, if that is said.
        if folder := cached_folder(Source(source.repo, None), kind):
            _LOG.warning("%s: %s; using another commit from the cache, %s", name, "; ".join(failures), folder)
            return found(source, folder)
    near = ", ".join(nearest_aliases(name, kind))
    neither = "" if entry else f"there is no folder {name!r} either (aliases to try: {near}); "
    raise DownloadError(
        f"{name}: could not fetch it{size} from {'; '.join(failures)}; {neither}{manual_download_hint(first, kind)}"
    )


def _existing(text: str) -> Path | None:
    try:
        path = Path(text).expanduser()
        return path if text and path.exists() else None
    except (OSError, RuntimeError, ValueError):  # a name too long, a ~user that is not there, a NUL
        return None


def _with_main(source: Source) -> tuple[Source, ...]:
    """A source, and its main branch for when the hub no longer has the pinned commit."""
    return (source,) if source.revision is None else (source, Source(source.repo, None))


def _at(source: Source) -> str:
    return f"{source.repo}@{source.revision[:12]}" if source.revision else source.repo


def _check_entry_kind(entry: RegistryEntry, kind: str) -> None:
    if entry.kind != kind:
        others = ", ".join(item.alias for item in entries(kind))
        raise CheckpointError(
            f"{entry.alias}: expected {KINDS[kind]} (one of {others}, a hub name or a folder), got {KINDS[entry.kind]}"
        )


def _is_like_alias(text: str) -> bool:
    """Whether a name such as ``ViT-B/61`` is a slip in an alias rather than a hub name."""
    owner = text.partition("/")[0].lower()
    return any(owner == item.alias.lower().partition("/")[0] for item in entries() if "/" in item.alias)


def _unknown(text: str, kind: str) -> str:
    expected = f"expected an alias, a hub name (owner/name) or a folder with {KINDS[kind]}"
    if text.startswith((".", "~", "/")) or "\\" in text or text.count("/") > 1:
        return f"{text}: {expected}, but there is no such folder"
    return f"no checkpoint is called {text!r} (try {', '.join(nearest_aliases(text, kind))}); {expected}"
