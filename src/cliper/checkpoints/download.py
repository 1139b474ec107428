"""Download from the Hugging Face hub: only the needed files, from the cache if all of them are there.

``huggingface_hub`` downloads, resumes, locks and caches.
"""

from __future__ import annotations

from pathlib import Path

from cliper.checkpoints.registry import HubRepo
from cliper.checkpoints.validate import (
    COMPONENTS,
    MARKER_FILES,
    check_model_type,
    list_files,
    needed_files,
    required_files,
)
from cliper.errors import short_reason

__all__ = ["cached_folder", "download_folder", "download_reason"]

# Name of an error's class -> reason. By name: which library's classes huggingface_hub raises depends on its version.
_NO_NETWORK = "no network (cannot connect to {host})"
_INTERRUPTED = "the connection was interrupted (run it again to continue where it stopped)"
_REASONS = {
    "OfflineModeIsEnabled": "HF_HUB_OFFLINE is set, so nothing is downloaded",
    "RevisionNotFoundError": "the hub has no such revision",
    "GatedRepoError": "access is restricted (ask for it at https://huggingface.co/{repo}, then `hf auth login`)",
    "RepositoryNotFoundError": "the hub has no such repository, or it is private (`hf auth login` if you have access)",
    "HfHubHTTPError": "the hub answered HTTP {status}; try again later",
    "PermissionError": "the cache folder cannot be written to ({cache}; HF_HOME moves it)",
    **dict.fromkeys(("ConnectError", "ConnectTimeout", "ProxyError"), _NO_NETWORK),
    **dict.fromkeys(("TimeoutException", "TimeoutError"), "no answer from {host} in time"),
    **dict.fromkeys(("TransportError", "ConnectionError", "XetDownloadError"), _INTERRUPTED),
}


def cached_folder(source: HubRepo, kind: str) -> Path | None:
    """The folder of a source in the cache if it has all needed files, else None. No network is used."""
    import huggingface_hub as hub
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    marker = [MARKER_FILES[kind]]
    try:
        folder = Path(
            hub.snapshot_download(source.repo, revision=source.revision, allow_patterns=marker, local_files_only=True)
        )
    except (OSError, ValueError):  # "not in the cache" is an OSError
        return None
    try:
        listing = hub.get_cached_repo_tree(source.repo, revision=folder.name)
    except CachedRepoTreeNotFoundError:
        # Downloaded by another program: what the repository has is unknown, so nothing may be missing.
        return None if needed_files(kind, list_files(folder, kind))[1] else folder
    needed, _ = needed_files(kind, [item.path for item in listing])
    return folder if all((folder / name).is_file() for name in needed) else None


def download_folder(source: HubRepo, kind: str) -> Path:
    """Download the needed files of a source into the cache and return their folder.

    Raises:
        CheckpointError: the repository is of another kind, or lacks a file without which it cannot be used.
        Exception: whatever ``huggingface_hub`` raises; see :func:`download_reason`.
    """
    import huggingface_hub as hub
    from huggingface_hub import constants

    info = hub.model_info(source.repo, revision=source.revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    if model_type := (info.config or {}).get("model_type"):
        check_model_type(source.repo, kind, COMPONENTS[kind][0], model_type)
    needed = required_files(source.repo, kind, [item.rfilename for item in info.siblings or []])
    return Path(hub.snapshot_download(source.repo, revision=source.revision, allow_patterns=needed))


def download_reason(error: BaseException, repo: str) -> str:
    """Why a download from a repository failed, from an exception of ``huggingface_hub`` or one below it."""
    from huggingface_hub import constants

    item: BaseException | None = error
    while item is not None:
        if "No space left on device" in str(item):  # a RuntimeError of the downloader in Rust, or an OSError
            return f"the disk is full ({constants.HF_HUB_CACHE})"
        names = [base.__name__ for base in type(item).__mro__]
        if reason := next((_REASONS[name] for name in names if name in _REASONS), None):
            return reason.format(
                repo=repo,
                host=constants.ENDPOINT.rpartition("://")[2],
                cache=constants.HF_HUB_CACHE,
                status=getattr(getattr(item, "response", None), "status_code", None),
            )
        item = item.__cause__ or item.__context__
    return f"{type(error).__name__}: {short_reason(error)}"
