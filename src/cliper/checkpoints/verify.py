"""The thorough check of a checkpoint: every tensor's name, shape and values, and checksums where they are known."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cliper.checkpoints.registry import KINDS, entry_of_repo, find_entry
from cliper.checkpoints.resolve import ResolvedCheckpoint, resolve
from cliper.checkpoints.tensors import compare, expected_shapes, iter_tensors
from cliper.checkpoints.validate import COMPONENTS, check_folder, kind_of_folder, list_files, needed_files, weight_paths
from cliper.errors import CheckpointError, DownloadError

__all__ = ["VerifyReport", "verify", "weight_hashes"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class VerifyReport:
    """The result of :func:`verify`.

    Args:
        name: of the checkpoint.
        folder: that was checked.
        files: names of the files that were checked.
        tensors: number of tensors that were read.
        problems: one line each; empty if there is none.
    """

    name: str
    folder: Path
    files: tuple[str, ...]
    tensors: int
    problems: list[str] = field(default_factory=list)


def verify(name: str | os.PathLike[str], kind: str | None = None) -> VerifyReport:
    """Check a checkpoint on this machine by reading all of it; nothing is downloaded.

    Files of the bundled checkpoint are compared with the registry's checksums, large files from the hub with the
    hub's; names and shapes of all tensors with those of the model that ``config.json`` describes; and all values must
    be finite. One tensor at a time is in memory.

    Args:
        name: as for :func:`cliper.checkpoints.resolve`.
        kind: ``"clip"``, ``"diffusion"`` or ``"dino"``; None to find out.

    Raises:
        CheckpointError: there is no such checkpoint.
        DownloadError: it is not on this machine.

    Example:
        >>> verify("mini").problems
        []
    """
    resolved = _resolve(os.fspath(name)) if kind is None else resolve(name, kind, download=False)
    folder, kind, entry = resolved.folder, resolved.kind, resolved.entry
    files: list[str] = []
    problems: list[str] = []
    tensors = 0
    try:
        names = list_files(folder, kind)
        bundled = entry.sha256 if entry is not None else {}
        files = sorted({*needed_files(kind, names)[0], *(bundled.keys() & set(names))})
        known = {file: digest for file in files if (digest := lfs_sha256(folder / file))}
        problems += _check_hashes(folder, known if resolved.source == "hub" else bundled)
        check_folder(folder, kind)
        for part in COMPONENTS[kind]:
            if part.weights:
                shapes: dict[str, tuple[int, ...]] = {}
                label = f"{part.folder}: " if part.folder else ""
                problems += [label + line for line in _check_tensors(resolved, part.folder, shapes)]
                tensors += len(shapes)
    except CheckpointError as error:
        problems.append(str(error).removeprefix(f"{folder}/").removeprefix(f"{folder}: "))
    return VerifyReport(resolved.name, folder, tuple(files), tensors, problems)


def weight_hashes(resolved: ResolvedCheckpoint) -> dict[str, str]:
    """SHA-256 of each weight file, by its name in the checkpoint's folder.

    Those of files in the hub's cache are taken from their names there, and the files are not read.

    Example:
        >>> from cliper.checkpoints import resolve
        >>> list(weight_hashes(resolve("mini", "clip")))
        ['model.safetensors']
    """
    paths = weight_paths(resolved.folder, resolved.kind)
    return {path.relative_to(resolved.folder).as_posix(): lfs_sha256(path) or _sha256(path) for path in paths}


def lfs_sha256(path: Path) -> str | None:
    """The checksum that is the name of a large file in the hub's cache; None for other files."""
    # One link only: a blob may itself be a link into a store whose names are not checksums of the content.
    name = path.readlink().name if path.is_symlink() else ""
    return name if _SHA256.fullmatch(name) else None


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_hashes(folder: Path, wanted: Mapping[str, str]) -> Iterator[str]:
    for file, digest in wanted.items():
        if not (folder / file).is_file():
            yield f"{file}: expected a file, got none; install the package again"
        elif (got := _sha256(folder / file)) != digest:
            yield f"{file}: expected sha256 {digest[:12]}..., got {got[:12]}...; download it again"


def _check_tensors(resolved: ResolvedCheckpoint, part: str, shapes: dict[str, tuple[int, ...]]) -> Iterator[str]:
    """Problems of the weights of one part; ``shapes`` receives the shapes of its tensors."""
    for path in weight_paths(resolved.folder, resolved.kind, part or None):
        for name, tensor in iter_tensors(path):
            shapes[name] = tuple(tensor.shape)
            if not bool(tensor.isfinite().all()):
                yield f"{name}: has values that are NaN or infinite"
    yield from compare(expected_shapes(resolved.folder, part), shapes)


def _resolve(name: str) -> ResolvedCheckpoint:
    """A checkpoint of unknown kind: the registry knows its kind, or its own files tell."""
    entry = find_entry(name) or entry_of_repo(name.partition("@")[0])
    for kind in (entry.kind,) if entry else KINDS:
        try:
            resolved = resolve(name, kind, download=False)
            break
        except DownloadError as error:
            failure = error
    else:
        raise failure
    return resolved if resolved.entry else replace(resolved, kind=kind_of_folder(resolved.folder) or resolved.kind)
