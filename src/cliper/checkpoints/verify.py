"""The thorough check of a checkpoint: every tensor's name, shape and values, and checksums where known."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cliper.checkpoints.files import COMPONENTS, needed_files, relative_names
from cliper.checkpoints.registry import KINDS, check_kind, find_entry
from cliper.checkpoints.resolve import ResolvedCheckpoint, resolve
from cliper.checkpoints.tensors import compare, expected_shapes, is_finite, iter_tensors
from cliper.checkpoints.validate import check_folder, read_json, weight_paths
from cliper.errors import CheckpointError, DownloadError

__all__ = ["VerifyReport", "verify", "weight_hashes"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class VerifyReport:
    """What :func:`verify` found.

    Args:
        name: of the checkpoint.
        folder: that was looked at.
        files: names of the files that were checked.
        tensors: how many tensors were read.
        problems: one line each; empty if all is well.
    """

    name: str
    folder: Path
    files: tuple[str, ...]
    tensors: int
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems


def verify(name: str | os.PathLike[str], kind: str | None = None) -> VerifyReport:
    """Check a checkpoint that is on this machine, reading all of it; nothing is fetched.

    Checksums of the bundled checkpoint are compared with the registry's, those of large files from the hub
    with the hub's own; the names and shapes of all tensors with what the model built from ``config.json``
    expects; all values have to be finite. One tensor is in memory at a time.

    Args:
        name: as for :func:`cliper.checkpoints.resolve`.
        kind: ``"clip"``, ``"diffusion"`` or ``"dino"``; None finds out.

    Raises:
        CheckpointError: there is no such checkpoint.
        DownloadError: it is not on this machine.

    Example:
        >>> verify("mini").problems
        []
    """
    resolved = _resolve(name, kind)
    files = _files(resolved)
    problems = [*_checksums(resolved, files)]
    tensors = 0
    try:
        check_folder(resolved.folder, resolved.kind)
        for part in COMPONENTS[resolved.kind]:
            if part.weights:
                read, found = _check_weights(resolved, part.folder, weight_paths(resolved.folder, part))
                tensors += read
                problems += found
    except CheckpointError as error:
        problems.append(_relative(error, resolved))
    return VerifyReport(resolved.name, resolved.folder, tuple(files), tensors, problems)


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
        path.relative_to(resolved.folder).as_posix(): lfs_sha256(path) or file_sha256(path)
        for part in COMPONENTS[resolved.kind]
        if part.weights
        for path in weight_paths(resolved.folder, part)
    }


def lfs_sha256(path: Path) -> str | None:
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


def _resolve(name: str | os.PathLike[str], kind: str | None) -> ResolvedCheckpoint:
    if kind is not None:
        check_kind(kind)
        return resolve(name, kind, download=False)
    entry = find_entry(os.fspath(name))
    if entry is not None:
        return resolve(name, entry.kind, download=False)
    # A folder or a hub name does not say what it is: its own files do.
    failures: list[DownloadError] = []
    for candidate in KINDS:
        try:
            resolved = resolve(name, candidate, download=False)
            check_folder(resolved.folder, candidate)
        except DownloadError as error:
            failures.append(error)
        except CheckpointError:
            continue
        else:
            return resolved
    if failures:
        raise failures[0]
    # Nothing passes even the cheap check: report what is wrong with it as the kind that it most looks like.
    return resolve(name, _likely_kind(Path(name).expanduser()), download=False)


def _likely_kind(folder: Path) -> str:
    if (folder / "model_index.json").exists():
        return "diffusion"
    try:
        model_type = str(read_json(folder / "config.json", "").get("model_type"))
    except CheckpointError:
        return "clip"
    return "dino" if model_type.startswith(("vit", "dino")) else "clip"


def _files(resolved: ResolvedCheckpoint) -> list[str]:
    names = relative_names(resolved.folder)
    listed = set(resolved.entry.sha256) if resolved.entry else set()
    return sorted({*needed_files(resolved.kind, names).files, *(listed & set(names))})


def _checksums(resolved: ResolvedCheckpoint, files: list[str]) -> Iterator[str]:
    if resolved.source == "bundled" and resolved.entry is not None:
        expected = dict(resolved.entry.sha256)
    elif resolved.source == "hub":
        expected = {name: blob for name in files if (blob := lfs_sha256(resolved.folder / name))}
    else:
        expected = {}
    for name, wanted in expected.items():
        path = resolved.folder / name
        if not path.is_file():
            yield f"{name}: expected a file, got none; install the package again"
            continue
        got = file_sha256(path)
        if got != wanted:
            yield f"{name}: expected sha256 {wanted[:12]}..., got {got[:12]}...; fetch it again"


def _check_weights(resolved: ResolvedCheckpoint, part: str, paths: list[Path]) -> tuple[int, list[str]]:
    label = f"{part}: " if part else ""
    problems: list[str] = []
    found: dict[str, tuple[int, ...]] = {}
    for path in paths:
        try:
            for tensor_name, tensor in iter_tensors(path):
                found[tensor_name] = tuple(tensor.shape)
                if not is_finite(tensor):
                    problems.append(f"{label}{tensor_name}: has values that are NaN or infinite")
        except CheckpointError as error:
            problems.append(_relative(error, resolved))
    try:
        expected = expected_shapes(resolved.folder, resolved.kind, part)
    except Exception as error:  # likewise for a configuration that makes no model
        words = " ".join(str(error).split())[:160]
        return len(found), [*problems, f"{label}config.json: makes no model: {type(error).__name__}: {words}"]
    return len(found), problems + [label + line for line in compare(expected, found)]


def _relative(error: CheckpointError, resolved: ResolvedCheckpoint) -> str:
    return str(error).removeprefix(f"{resolved.folder}/")
