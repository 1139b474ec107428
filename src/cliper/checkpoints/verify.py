"""The thorough check of a checkpoint: every tensor's name, shape and values, and checksums where they are known."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from cliper.checkpoints.files import COMPONENTS, needed_files, relative_names
from cliper.checkpoints.registry import KINDS, entry_of_repo, find_entry
from cliper.checkpoints.resolve import ResolvedCheckpoint, resolve
from cliper.checkpoints.tensors import compare, expected_shapes, is_finite, iter_tensors
from cliper.checkpoints.validate import check_folder, read_json, weight_paths
from cliper.errors import CheckpointError, DownloadError, short_reason

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

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems


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
    folder = resolved.folder
    checksums = resolved.entry.sha256 if resolved.entry else {}
    names = set(relative_names(folder))
    files = sorted({*needed_files(resolved.kind, names).files, *(names & set(checksums))})
    if resolved.source == "hub":
        checksums = {name: digest for name in files if (digest := lfs_sha256(folder / name))}
    problems: list[str] = []
    for file, wanted in checksums.items():
        if file not in names:
            problems.append(f"{file}: expected a file, got none; install the package again")
        elif (got := _sha256(folder / file)) != wanted:
            problems.append(f"{file}: expected sha256 {wanted[:12]}..., got {got[:12]}...; download it again")
    tensors = 0
    try:
        check_folder(folder, resolved.kind)
    except CheckpointError as error:
        problems.append(str(error))
    else:
        for part in COMPONENTS[resolved.kind]:
            if part.weights:
                shapes: dict[str, tuple[int, ...]] = {}
                problems += _check_weights(resolved, part.folder, weight_paths(folder, part), shapes)
                tensors += len(shapes)
    problems = [line.removeprefix(f"{folder}/").removeprefix(f"{folder}: ") for line in problems]
    return VerifyReport(resolved.name, folder, tuple(files), tensors, problems)


def weight_hashes(resolved: ResolvedCheckpoint) -> dict[str, str]:
    """SHA-256 of each weight file, by its name in the checkpoint's folder.

    Those of files in the hub's cache are taken from their names there, and the files are not read.

    Raises:
        CheckpointError: a part of the checkpoint has no weights.

    Example:
        >>> from cliper.checkpoints import resolve
        >>> list(weight_hashes(resolve("mini", "clip")))
        ['model.safetensors']
    """
    paths = [path for part in COMPONENTS[resolved.kind] if part.weights for path in weight_paths(resolved.folder, part)]
    return {path.relative_to(resolved.folder).as_posix(): lfs_sha256(path) or _sha256(path) for path in paths}


def lfs_sha256(path: Path) -> str | None:
    """The checksum that is the name of a large file in the hub's cache; None for other files."""
    # One link only: a blob may itself be a link into a store whose names are not checksums of the content.
    name = path.readlink().name if path.is_symlink() else ""
    return name if _SHA256.fullmatch(name) else None


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
    if resolved.entry is not None:
        return resolved
    if (resolved.folder / "model_index.json").exists():
        return replace(resolved, kind="diffusion")
    try:
        model_type = str(read_json(resolved.folder / "config.json", "").get("model_type"))
    except CheckpointError:
        return resolved
    return replace(resolved, kind="dino" if model_type.startswith(("vit", "dino")) else "clip")


def _check_weights(
    resolved: ResolvedCheckpoint, part: str, paths: list[Path], shapes: dict[str, tuple[int, ...]]
) -> Iterator[str]:
    """Problems of the weights of one part; ``shapes`` receives the shapes of its tensors."""
    label = f"{part}: " if part else ""
    for path in paths:
        try:
            for name, tensor in iter_tensors(path):
                shapes[name] = tuple(tensor.shape)
                if not is_finite(tensor):
                    yield f"{label}{name}: has values that are NaN or infinite"
        except CheckpointError as error:
            yield str(error)
    try:
        expected = expected_shapes(resolved.folder, resolved.kind, part)
    except Exception as error:  # every library has its own for a configuration that it cannot use
        yield f"{label}config.json: makes no model: {type(error).__name__}: {short_reason(error)}"
    else:
        yield from (label + line for line in compare(expected, shapes))
