"""Cheap checks of a checkpoint's folder before anything is loaded: names, sizes and headers. Input is untrusted."""

from __future__ import annotations

import json
import os
import stat
import struct
import zipfile
from pathlib import Path
from typing import Any

from cliper.checkpoints.files import COMPONENTS, TOKENIZER, Component, has_tokenizer, weight_files
from cliper.checkpoints.registry import KINDS, check_kind
from cliper.errors import CheckpointError, short_reason

__all__ = ["check_folder", "check_weight_file", "read_json", "weight_paths"]

# Bytes. safetensors itself refuses a longer header; the longest JSON file, an index of shards, has less than a million.
_MAX_HEADER = _MAX_JSON = 100_000_000


def check_folder(folder: str | os.PathLike[str], kind: str) -> None:
    """Check that a folder holds a checkpoint of a kind, complete as far as sizes and headers tell.

    A CLIP folder without a tokenizer passes: images can be encoded without one.

    Args:
        folder: in ``transformers``' layout (``diffusers``' for ``kind="diffusion"``).
        kind: ``"clip"``, ``"diffusion"`` or ``"dino"``.

    Raises:
        CheckpointError: it is not a folder, a file is missing, truncated or not what its name says, an entry is a
            pipe, socket or device, or the checkpoint is of another kind.

    Example:
        >>> from cliper.checkpoints import resolve
        >>> check_folder(resolve("mini", "clip").folder, "clip")
    """
    check_kind(kind)
    root = Path(folder)
    if not root.is_dir():
        what = "a file" if root.exists() else "nothing there"
        raise CheckpointError(f"{root}: expected the folder of {KINDS[kind]}, got {what}")
    for part in COMPONENTS[kind]:
        home = root / part.folder
        if not home.is_dir():
            raise CheckpointError(f"{root}: expected {KINDS[kind]} with a folder {part.folder}, got none")
        # transformers and diffusers open every file whose name they know, and opening a pipe could block for ever.
        for path in home.iterdir():
            _check_file_type(path)
        for name in part.required:
            config = read_json(home / name, f"{KINDS[kind]} has one")
            got = config.get("model_type")
            if part.model_types and got not in part.model_types:
                types = " or ".join(map(repr, part.model_types))
                what = "a CLIP text encoder" if part.folder else KINDS[kind]
                came = "none" if got is None else repr(got)
                raise CheckpointError(f"{home / name}: expected {what} (model_type {types}), got {came}")
        if part.folder == "tokenizer" and not has_tokenizer([path.name for path in home.iterdir()]):
            raise CheckpointError(f"{root}: expected tokenizer/{TOKENIZER}, got none; the empty prompt needs it")
        if part.weights:
            for path in weight_paths(root, part):
                check_weight_file(path)


def weight_paths(root: Path, part: Component) -> list[Path]:
    """The weight files of one part of a checkpoint, without the index of a sharded one.

    Raises:
        CheckpointError: there is none, or a shard is missing.
    """
    home = root / part.folder
    names = [path.name for path in home.iterdir()] if home.is_dir() else []
    files, missing = weight_files(names, part.weights)
    if missing:
        similar = sorted(name for name in names if name.endswith((".safetensors", ".bin", ".pt", ".ckpt")))
        found = f" (found {', '.join(similar[:3])})" if similar else ""
        raise CheckpointError(
            f"{home}: expected a weight file, {', '.join(missing[:3])}, got none{found}; download it again"
        )
    if files[0].endswith(".index.json"):
        index, *files = files
        shards = read_json(home / index, "it lists the shards").get("weight_map")
        if not isinstance(shards, dict) or {str(name) for name in shards.values()} != set(files):
            raise CheckpointError(f"{home / index}: expected a 'weight_map' to the files beside it; download it again")
    return [home / name for name in files]


def check_weight_file(path: Path) -> None:
    """Check the format and the length of one weight file, by its header and its end.

    Raises:
        CheckpointError: it is empty, truncated, or something else.
    """
    _check_file_type(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(24)
    except OSError as error:
        raise CheckpointError(f"{path}: the weight file cannot be read: {error.strerror or error}") from None
    if size == 0:
        raise CheckpointError(f"{path}: expected weights, got an empty file; download it again")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path}: expected weights, got a Git LFS pointer to them; run `git lfs pull`")
    if path.suffix == ".safetensors":
        expected = _safetensors_size(path)
        if size != expected:
            state = "truncated" if size < expected else "too long"
            raise CheckpointError(
                f"{path}: the weight file is {state}: its header says {expected} bytes, the file has {size}; "
                "download it again"
            )
    elif start.startswith(b"PK"):
        if not zipfile.is_zipfile(path):  # its directory is at its end
            raise CheckpointError(f"{path}: the weight file is truncated ({size} bytes); download it again")
    elif not start.startswith(b"\x80"):  # a pickle, as PyTorch wrote before 1.6; its length is stored nowhere
        raise CheckpointError(f"{path}: expected PyTorch weights, got something else; download it again")


def read_json(path: Path, reason: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: there is no such file, or it is not JSON, not an object, or larger than 100 MB.
    """
    _check_file_type(path)
    try:
        if path.stat().st_size > _MAX_JSON:
            raise OSError(f"it has more than {_MAX_JSON:,} bytes")
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent}: expected {path.name} ({reason}), got none") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: expected JSON, could not read it: {short_reason(error)}") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(data).__name__}")
    return data


def _check_file_type(path: Path) -> None:
    """Refuse a pipe, socket or device before it is opened; a missing file passes."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise CheckpointError(f"{path}: expected a file, got a pipe, socket or device; remove it")


def _safetensors_size(path: Path) -> int:
    """The size that the header of a safetensors file says it has."""
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length) if length <= _MAX_HEADER else b"")
        ends = [int(item["data_offsets"][1]) for name, item in header.items() if name != "__metadata__"]
        return 8 + int(length) + max(ends)
    except (OSError, struct.error, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise CheckpointError(
            f"{path}: expected safetensors, got a header that cannot be read; download it again"
        ) from None
