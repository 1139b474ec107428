"""Fetching from the Hugging Face hub: the cache first, one quick question, then only the needed files.

Two things are added to ``huggingface_hub``. A folder in its cache counts only when every needed file is
there, so a download that was interrupted is never taken for complete (running again goes on where it
stopped). And the hub is first asked one question with a short time limit and no repeats, so a machine without
network learns so in seconds.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cliper.checkpoints.files import MARKER_FILES, needed_files, relative_names
from cliper.checkpoints.registry import KINDS, Source
from cliper.errors import CheckpointError, DownloadError

__all__ = ["MODEL_TYPES", "Failure", "cached_folder", "download_folder", "explain", "manual_download_hint"]

# What config.json may call itself.
MODEL_TYPES = {"clip": ("clip",), "dino": ("vit", "dinov2")}

_TIMEOUT = 5.0


@dataclass(frozen=True)
class Failure:
    """Why a fetch failed.

    Args:
        scope: ``"revision"`` (that commit is gone), ``"repository"`` (it cannot be had from there) or
            ``"local"`` (no network, a full disk: no other repository would help).
        reason: in words.
    """

    scope: str
    reason: str


def cached_folder(source: Source, kind: str) -> Path | None:
    """The folder of a source in the cache if all needed files are there, else None. No network is used."""
    import huggingface_hub

    try:
        folder = Path(
            huggingface_hub.snapshot_download(
                source.repo, revision=source.revision, allow_patterns=[MARKER_FILES[kind]], local_files_only=True
            )
        )
    except (OSError, ValueError):  # what the hub raises for "not in the cache" is an OSError
        return None
    listing = _cached_listing(source.repo, folder.name)
    if listing is None:
        # Put there by another program, so what the repository has is not known: everything is asked for.
        return folder if not needed_files(kind, relative_names(folder)).missing else None
    needed = needed_files(kind, listing)
    return folder if all((folder / name).is_file() for name in needed.files) else None


def download_folder(source: Source, kind: str) -> Path:
    """Fetch the needed files of a source into the cache and give their folder.

    Raises:
        CheckpointError: the repository is of another kind, or lacks a file without which it cannot be used.
        Exception: whatever ``huggingface_hub`` raises; :func:`explain` puts it into words.
    """
    import huggingface_hub

    info = huggingface_hub.model_info(source.repo, revision=source.revision, timeout=_timeout())
    names = [item.rfilename for item in info.siblings or []]
    model_type = (info.config or {}).get("model_type") if isinstance(info.config, dict) else None
    expected = MODEL_TYPES.get(kind)
    if expected and model_type is not None and model_type not in expected:
        raise CheckpointError(
            f"{source.repo}: expected {KINDS[kind]} (model_type {_either(expected)}), got {model_type!r}"
        )
    needed = needed_files(kind, names)
    # Without a tokenizer a CLIP can still be used for pictures, so that alone is no reason to refuse it.
    lacking = [item for item in needed.missing if kind == "diffusion" or not item.startswith("tokenizer")]
    if lacking:
        raise CheckpointError(
            f"{source.repo}: expected {KINDS[kind]}, but that repository has no {', no '.join(lacking)}"
        )
    folder = Path(
        huggingface_hub.snapshot_download(source.repo, revision=source.revision, allow_patterns=list(needed.files))
    )
    absent = [name for name in needed.files if not (folder / name).is_file()]
    if absent:
        raise DownloadError(f"{source.repo}: the download ended without {', '.join(absent)}; run it again")
    return folder


def explain(error: BaseException, repo: str) -> Failure:
    """Put an exception of ``huggingface_hub`` into words.

    Args:
        error: what was raised.
        repo: the repository that was asked for.
    """
    from huggingface_hub import errors

    for item in _chain(error):
        if isinstance(item, errors.OfflineModeIsEnabled):
            return Failure("local", "HF_HUB_OFFLINE is set, so nothing is fetched")
        if isinstance(item, errors.RevisionNotFoundError):
            return Failure("revision", "the hub has no such revision")
        if isinstance(item, errors.GatedRepoError):
            return Failure(
                "repository",
                f"access is restricted (ask for it at https://huggingface.co/{repo}, then `hf auth login`)",
            )
        if isinstance(item, errors.RepositoryNotFoundError):
            return Failure("repository", "the hub has no such repository, or it is private")
        if isinstance(item, errors.HfHubHTTPError):
            return _http(item)
        if _is_disk_full(item):
            return Failure("local", f"the disk is full ({_cache()})")
        if isinstance(item, OSError) and item.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return Failure("local", f"the cache folder cannot be written to ({_cache()}; HF_HOME moves it)")
        if reason := _network(item):
            return Failure("local", reason)
    words = " ".join(str(error).split())[:200]
    return Failure("local", f"{type(error).__name__}: {words}" if words else type(error).__name__)


def manual_download_hint(repo: str, kind: str) -> str:
    """The sentence that says how to bring a folder to a machine that cannot fetch one."""
    # A Stable Diffusion repository holds the same weights five times over, so only what is needed is named.
    some = ' --include "*.json" --include "*.txt" --include "*/*model.safetensors"' if kind == "diffusion" else ""
    option = "--model" if kind == "clip" else "--refiner"
    return f"download it on a machine with network: `hf download {repo}{some} --local-dir DIR`, then give {option} DIR"


def _cached_listing(repo: str, commit: str) -> list[str] | None:
    import huggingface_hub
    from huggingface_hub import errors

    # Both came with huggingface_hub 2; before, the listing of a repository is not kept.
    read = getattr(huggingface_hub, "get_cached_repo_tree", None)
    not_found = getattr(errors, "CachedRepoTreeNotFoundError", OSError)
    if read is None:
        return None
    try:
        return [item.path for item in read(repo, revision=commit)]
    except (not_found, OSError, ValueError):
        return None


def _timeout() -> float:
    # The hub's own variable for how long an answer may take; its default of 10 s is not quick.
    try:
        return float(os.environ["HF_HUB_ETAG_TIMEOUT"])
    except (KeyError, ValueError):
        return _TIMEOUT


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    item: BaseException | None = error
    while item is not None and id(item) not in seen:
        seen.add(id(item))
        yield item
        item = item.__cause__ or item.__context__


def _http(error: BaseException) -> Failure:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403, 404, 410, 451):
        return Failure(
            "repository",
            f"it is not there or not for everybody (HTTP {status}; `hf auth login` if you have access)",
        )
    return Failure("local", f"the hub answered HTTP {status}; try again later")


def _is_disk_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    # The hub's Rust downloader passes the operating system's words on inside a RuntimeError.
    return "No space left on device" in str(error)


def _network(error: BaseException) -> str:
    # By name: huggingface_hub 1 raises httpx's classes, 2 those of its own copy of it.
    names = {base.__name__ for base in type(error).__mro__}
    if names & {"ConnectError", "ConnectTimeout", "ProxyError", "ConnectionRefusedError", "gaierror"}:
        return f"no network (cannot connect to {_host()})"
    if names & {"TimeoutException", "TimeoutError"}:
        return f"no answer from {_host()} in time"
    if names & {"TransportError", "ConnectionError", "XetDownloadError"}:
        return "the connection was interrupted (run it again to go on where it stopped)"
    return ""


def _host() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT).partition("://")[2] or str(constants.ENDPOINT)


def _cache() -> str:
    from huggingface_hub import constants

    return str(constants.HF_HUB_CACHE)


def _either(items: tuple[str, ...]) -> str:
    return " or ".join(repr(item) for item in items)
