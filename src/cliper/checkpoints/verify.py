"""The thorough check of a checkpoint: checksums where they are known, and every tensor's name, shape and values."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cliper.checkpoints.clip import read_clip_config, read_clip_weights
from cliper.checkpoints.registry import entry_of_repo, find_entry
from cliper.checkpoints.resolve import ResolvedCheckpoint, resolve
from cliper.checkpoints.tensors import iter_tensors
from cliper.checkpoints.validate import check_folder, kind_of_folder, list_files, needed_files, parts_of, weight_paths
from cliper.errors import CheckpointError

__all__ = ["VerifyReport", "verify_checkpoint", "weight_hashes"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class VerifyReport:
    """The result of :func:`verify_checkpoint`.

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


def verify_checkpoint(name: str | os.PathLike[str], kind: str | None = None) -> VerifyReport:
    """Check a checkpoint on this machine by reading all of it; nothing is downloaded.

    Files of the bundled checkpoint are compared with the registry's checksums, large files from the hub with the
    hub's. The libraries must find every weight that ``config.json`` describes, in its shape, and all values must be
    finite. The parts of a pipeline are loaded one after the other.

    Args:
        name: as for :func:`cliper.checkpoints.resolve`.
        kind: one of :data:`.KINDS`; None takes it from the registry or from a local folder's
            configuration, and else ``"clip"``.

    Raises:
        CheckpointError: there is no such checkpoint.
        DownloadError: it is not on this machine.

    Example:
        >>> verify_checkpoint("mini").problems
        []
    """
    text = os.fspath(name)
    entry = find_entry(text) or entry_of_repo(text.partition("@")[0])
    resolved = resolve(name, kind or (entry.kind if entry else "clip"), download=False)
    folder = resolved.folder
    if kind is None and resolved.source == "local":
        resolved = replace(resolved, kind=kind_of_folder(folder) or resolved.kind)
    files: list[str] = []
    problems: list[str] = []
    tensors = 0
    try:
        bundled = resolved.entry.sha256 if resolved.entry is not None else {}
        if folder.is_file():
            files = [folder.name]
        else:
            names = list_files(folder, resolved.kind)
            files = sorted({*needed_files(str(folder), resolved.kind, names), *(bundled.keys() & set(names))})
        known = {file: digest for file in files if (digest := lfs_sha256(folder / file))}
        problems += _check_hashes(folder, known if resolved.source == "hub" else bundled)
        check_folder(folder, resolved.kind)
        for part in parts_of(resolved.kind, files):
            if part.weights:
                count, lines = _check_part(resolved, part.folder)
                tensors += count
                problems += [f"{part.folder}: {line}" if part.folder else line for line in lines]
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
    root = resolved.folder if resolved.folder.is_dir() else resolved.folder.parent
    return {path.relative_to(root).as_posix(): lfs_sha256(path) or _sha256(path) for path in paths}


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


def _check_part(resolved: ResolvedCheckpoint, part: str) -> tuple[int, list[str]]:
    """The number of tensors of one part, and its problems."""
    from cliper.pretrained import load_model

    tensors, folder = 0, resolved.folder / part
    problems = []
    for path in weight_paths(resolved.folder, resolved.kind, part or None):
        for name, tensor in iter_tensors(path):
            tensors += 1
            if not bool(tensor.isfinite().all()):
                problems.append(f"{name}: has values that are NaN or infinite")
    if resolved.kind == "clip":
        return tensors, problems + read_clip_weights(folder, read_clip_config(folder, resolved.activation))[1]
    return tensors, problems + load_model(_model_class(resolved.kind, part), folder)[1]


def _model_class(kind: str, part: str) -> Any:
    if kind == "vae" or part in ("unet", "vae"):
        import diffusers

        if kind == "vae":
            return diffusers.AutoencoderTiny
        return diffusers.UNet2DConditionModel if part == "unet" else diffusers.AutoencoderKL
    import transformers

    if part == "text_encoder_2":
        return transformers.CLIPTextModelWithProjection
    return transformers.CLIPTextModel if part else transformers.AutoModel
