"""Download from the Hugging Face hub: the cache first, then one request with a short timeout, then the needed files.

``huggingface_hub`` downloads, resumes and caches. Added here: only the needed files are taken; a folder in the cache
counts only if it has all of them; and without network the first request fails within seconds.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from cliper.checkpoints.files import COMPONENTS, MARKER_FILES, needed_files, relative_names
from cliper.checkpoints.registry import KINDS, Source
from cliper.errors import CheckpointError, DownloadError

__all__ = ["Failure", "cached_folder", "download_folder", "explain", "manual_download_hint"]

_TIMEOUT = 5.0  # seconds; huggingface_hub's own is 10

_NO_NETWORK = ("local", "no network (cannot connect to {host})")
_NO_ANSWER = ("local", "no answer from {host} in time")
_INTERRUPTED = ("local", "the connection was interrupted (run it again to continue where it stopped)")
_RESTRICTED = "access is restricted (ask for it at https://huggingface.co/{repo}, then `hf auth login`)"
# Name of an error's class -> scope and reason of the failure. By name: huggingface_hub 1 raises classes of httpx, 2
# those of its own copy of it.
_REASONS = {
    "OfflineModeIsEnabled": ("local", "HF_HUB_OFFLINE is set, so nothing is downloaded"),
    "RevisionNotFoundError": ("revision", "the hub has no such revision"),
    "GatedRepoError": ("repository", _RESTRICTED),
    "RepositoryNotFoundError": ("repository", "the hub has no such repository, or it is private"),
    "PermissionError": ("local", "the cache folder cannot be written to ({cache}; HF_HOME moves it)"),
    **dict.fromkeys(
        ("ConnectError", "ConnectTimeout", "ProxyError", "ConnectionRefusedError", "gaierror"), _NO_NETWORK
    ),
    **dict.fromkeys(("TimeoutException", "TimeoutError"), _NO_ANSWER),
    **dict.fromkeys(("TransportError", "ConnectionError", "XetDownloadError"), _INTERRUPTED),
}
_FORBIDDEN = "it is not there or not public (HTTP {status}; `hf auth login` if you have access)"


@dataclass(frozen=True)
class Failure:
    """Why a download failed.

    Args:
        scope: ``"revision"`` (the repository has no such commit), ``"repository"`` (it cannot be had from there) or
            ``"local"`` (no network, a full disk: no other repository would help).
        reason: for the user.
    """

    scope: str
    reason: str


def cached_folder(source: Source, kind: str) -> Path | None:
    """The folder of a source in the cache if it has all needed files, else None. No network is used."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        folder = Path(
            huggingface_hub.snapshot_download(
                source.repo, revision=source.revision, allow_patterns=[MARKER_FILES[kind]], local_files_only=True
            )
        )
    except (OSError, ValueError):  # "not in the cache" is an OSError
        return None
    try:
        listing = huggingface_hub.get_cached_repo_tree(source.repo, revision=folder.name)
    except (errors.CachedRepoTreeNotFoundError, OSError, ValueError):
        # Downloaded by another program: what the repository has is unknown, so nothing may be missing.
        return None if needed_files(kind, relative_names(folder)).missing else folder
    needed = needed_files(kind, [item.path for item in listing]).files
    return folder if all((folder / name).is_file() for name in needed) else None


def download_folder(source: Source, kind: str) -> Path:
    """Download the needed files of a source into the cache and return their folder.

    Raises:
        CheckpointError: the repository is of another kind, or lacks a file without which it cannot be used.
        Exception: whatever ``huggingface_hub`` raises; see :func:`explain`.
    """
    import huggingface_hub

    timeout = float(os.environ.get("HF_HUB_ETAG_TIMEOUT", _TIMEOUT))
    info = huggingface_hub.model_info(source.repo, revision=source.revision, timeout=timeout)
    model_type = (info.config or {}).get("model_type")
    expected = COMPONENTS[kind][0].model_types
    if expected and model_type is not None and model_type not in expected:
        types = " or ".join(map(repr, expected))
        raise CheckpointError(f"{source.repo}: expected {KINDS[kind]} (model_type {types}), got {model_type!r}")
    needed = needed_files(kind, [item.rfilename for item in info.siblings or []])
    # A CLIP without a tokenizer can still encode images.
    missing = [item for item in needed.missing if kind == "diffusion" or not item.startswith("tokenizer")]
    if missing:
        raise CheckpointError(
            f"{source.repo}: expected {KINDS[kind]}; the repository has no {', no '.join(missing[:3])}"
        )
    folder = Path(
        huggingface_hub.snapshot_download(source.repo, revision=source.revision, allow_patterns=list(needed.files))
    )
    absent = [name for name in needed.files if not (folder / name).is_file()]
    if absent:
        raise DownloadError(f"{source.repo}: the download ended without {', '.join(absent)}; run it again")
    return folder


def explain(error: BaseException, repo: str) -> Failure:
    """Why a download from a repository failed, from an exception of ``huggingface_hub`` or one below it."""
    from huggingface_hub import constants

    item: BaseException | None = error
    while item is not None:
        names = [base.__name__ for base in type(item).__mro__]
        status = getattr(getattr(item, "response", None), "status_code", None)
        number = getattr(item, "errno", None)
        # huggingface_hub's downloader in Rust reports a full disk as a RuntimeError with this text.
        if number in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(item):
            return Failure("local", f"the disk is full ({constants.HF_HUB_CACHE})")
        if number == errno.EROFS:
            names.insert(0, "PermissionError")
        if found := next((_REASONS[name] for name in names if name in _REASONS), None):
            host = str(constants.ENDPOINT).rpartition("://")[2]
            return Failure(found[0], found[1].format(repo=repo, host=host, cache=constants.HF_HUB_CACHE))
        if status in (401, 403, 404, 410, 451):
            return Failure("repository", _FORBIDDEN.format(status=status))
        if status is not None:
            return Failure("local", f"the hub answered HTTP {status}; try again later")
        item = item.__cause__ or item.__context__
    return Failure("local", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".removesuffix(": "))


def manual_download_hint(repo: str, kind: str) -> str:
    """How to bring a checkpoint to a machine that cannot download it."""
    # A Stable Diffusion repository holds the same weights five times over, so only what is needed is named.
    some = ' --include "*.json" --include "*.txt" --include "*/*model.safetensors"' if kind == "diffusion" else ""
    option = "--model" if kind == "clip" else "--refiner"
    return f"download it on a machine with network: `hf download {repo}{some} --local-dir DIR`, then give {option} DIR"
