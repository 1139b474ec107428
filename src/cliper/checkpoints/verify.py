"""The thorough check of a checkpoint: every tensor's name, shape and values, and checksums where known."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cliper.checkpoints.files import COMPONENTS, needed_files, relative_names
from cliper.checkpoints.hashes import blob_name, file_sha256
from cliper.checkpoints.inspect import check_folder, read_json, weights_of
from cliper.checkpoints.registry import KINDS, check_kind, find_entry
from cliper.checkpoints.sources import ResolvedCheckpoint, resolve
from cliper.checkpoints.tensors import compare, expected_shapes, is_finite, iterate
from cliper.errors import CheckpointError, DownloadError

__all__ = ["VerifyReport", "verify"]


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
                read, found = _check_weights(resolved, part.folder, weights_of(resolved.folder, part))
                tensors += read
                problems += found
    except CheckpointError as error:
        problems.append(_relative(error, resolved))
    return VerifyReport(resolved.name, resolved.folder, tuple(files), tensors, problems)


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
        expected = {name: blob for name in files if (blob := blob_name(resolved.folder / name))}
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
            for tensor_name, tensor in iterate(path):
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
