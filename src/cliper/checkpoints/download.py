"""Download from the Hugging Face hub: only the needed files, from the cache if all of them are there.

``huggingface_hub`` downloads, resumes, locks and caches.
"""

from __future__ import annotations

from pathlib import Path

from cliper.checkpoints.registry import HubRepo
from cliper.checkpoints.validate import (
    COMPONENTS,
    MARKER_FILES,
    OPEN_CLIP_CONFIG,
    check_model_type,
    list_files,
    needed_files,
)
from cliper.errors import CheckpointError, short_reason

__all__ = ["cached_folder", "download_folder", "download_reason"]

# Class of huggingface_hub's error -> reason. By name: its HTTP library, which has the last, is not ours to import.
_REASONS = {
    "OfflineModeIsEnabled": "HF_HUB_OFFLINE is set, so nothing is downloaded",
    "RevisionNotFoundError": "the hub has no such revision (the newest one is {repo}@main)",
    "GatedRepoError": "access is restricted (ask for it at https://huggingface.co/{repo}, then `hf auth login`)",
    "RepositoryNotFoundError": "the hub has no such repository, or it is private (`hf auth login` if you have access)",
    "HfHubHTTPError": "the hub answered HTTP {status}; try again later",
    "ConnectError": "no network (cannot connect to {host})",
    "TransportError": "the connection to {host} failed ({text})",
    "PermissionError": "the cache folder cannot be written to ({cache}; HF_HOME moves it)",
}


def cached_folder(source: HubRepo, kind: str) -> Path | None:
    """The folder of a source in the cache if it has all needed files, else None. No network is used."""
    import huggingface_hub as hub
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    marker = [MARKER_FILES[kind], OPEN_CLIP_CONFIG]
    try:
        path = hub.snapshot_download(
            source.repo, revision=source.revision, allow_patterns=marker, local_files_only=True
        )
    except (OSError, ValueError):  # "not in the cache" is an OSError
        return None
    folder = Path(path)
    try:
        try:
            names = [item.path for item in hub.get_cached_repo_tree(source.repo, revision=folder.name)]
            needed = needed_files(path, kind, names)
        except CachedRepoTreeNotFoundError:
            # Downloaded by another program: what the repository has is unknown, so nothing may be missing.
            needed = needed_files(path, kind, list_files(folder, kind), tokenizer=True)
    except CheckpointError:
        return None
    return folder if all((folder / name).is_file() for name in needed) else None


def download_folder(source: HubRepo, kind: str) -> Path:
    """Download the needed files of a source into the cache and return their folder.

    Raises:
        CheckpointError: the repository is of another kind, or lacks a file without which it cannot be used.
        Exception: whatever ``huggingface_hub`` raises; see :func:`download_reason`.
    """
    import huggingface_hub as hub
    from huggingface_hub import constants

    # The other requests have no time limit.
    info = hub.model_info(source.repo, revision=source.revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    if model_type := (info.config or {}).get("model_type"):
        check_model_type(source.repo, kind, COMPONENTS[kind][0], model_type)
    needed = needed_files(source.repo, kind, [item.rfilename for item in info.siblings or []])
    return Path(hub.snapshot_download(source.repo, revision=source.revision, allow_patterns=needed))


def download_reason(error: Exception, repo: str) -> str:
    """Why a download from a repository failed, from an exception of ``huggingface_hub`` or one below it."""
    from huggingface_hub import constants

    text = f"{type(error).__name__}: {short_reason(error)}"
    reason = next((_REASONS[base.__name__] for base in type(error).__mro__ if base.__name__ in _REASONS), "{text}")
    status = getattr(getattr(error, "response", None), "status_code", None)
    host = constants.ENDPOINT.rpartition("://")[2]
    return reason.format(repo=repo, host=host, status=status, cache=constants.HF_HUB_CACHE, text=text)
