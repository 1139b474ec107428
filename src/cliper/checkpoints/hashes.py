"""Checksums of a checkpoint's weights, so that a report says exactly what it was made with."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from cliper.checkpoints.files import COMPONENTS
from cliper.checkpoints.inspect import weights_of
from cliper.checkpoints.sources import ResolvedCheckpoint

__all__ = ["blob_name", "file_sha256", "weight_hashes"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


def weight_hashes(resolved: ResolvedCheckpoint) -> dict[str, str]:
    """SHA-256 of each file of weights, by its name in the checkpoint's folder.

    Files of the hub's cache carry theirs in their name and are not read.

    Raises:
        CheckpointError: a part of the checkpoint has no weights.

    Example:
        >>> from cliper.checkpoints import resolve
        >>> list(weight_hashes(resolve("mini", "clip")))
        ['model.safetensors']
    """
    return {
        path.relative_to(resolved.folder).as_posix(): blob_name(path) or file_sha256(path)
        for part in COMPONENTS[resolved.kind]
        if part.weights
        for path in weights_of(resolved.folder, part)
    }


def blob_name(path: Path) -> str | None:
    """The checksum that the hub's cache keeps as the name of a large file's blob, if it does."""
    # One link only: a blob may itself be a link into a store whose names are not checksums of the content.
    if not path.is_symlink():
        return None
    name = path.readlink().name
    return name if _SHA256.fullmatch(name) else None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
