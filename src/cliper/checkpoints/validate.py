"""Cheap checks of a checkpoint's folder before anything is loaded: names, configurations and headers.

Input is untrusted.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from cliper.checkpoints.files import (
    COMPONENTS,
    MARKER_FILES,
    TOKENIZER,
    Component,
    check_file_type,
    list_files,
    needed_files,
)
from cliper.checkpoints.registry import KINDS, check_kind
from cliper.checkpoints.tensors import iter_tensors
from cliper.errors import CheckpointError, short_reason

__all__ = ["check_folder", "check_model_type", "kind_of_folder", "read_json", "weight_paths"]

_MAX_JSON = 100_000_000  # bytes; the longest, an index of shards, has less than a million


def check_folder(folder: str | os.PathLike[str], kind: str) -> None:
    """Check that a folder holds a checkpoint of a kind, complete as far as names, sizes and headers tell.

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
    missing = [item for item in needed_files(kind, list_files(root, kind))[1] if item != TOKENIZER]
    if missing:
        raise CheckpointError(f"{root}: expected {KINDS[kind]}, got no {', no '.join(missing[:3])}; download it again")
    for part in COMPONENTS[kind]:
        if part.config:
            path = root / part.folder / part.config
            check_model_type(str(path), kind, part, read_json(path, f"{KINDS[kind]} has one").get("model_type"))
    for path in weight_paths(root, kind):
        # Its readers compare a file's header, or its directory, with its length when they open it.
        if next(iter_tensors(path), None) is None:
            raise CheckpointError(f"{path}: expected weights, got a file without tensors; download it again")


def check_model_type(place: str, kind: str, part: Component, model_type: Any) -> None:
    """Check what a configuration says about the kind of the model.

    Raises:
        CheckpointError: it is another kind; the message begins with ``place``.
    """
    if part.model_types and model_type not in part.model_types:
        types = " or ".join(map(repr, part.model_types))
        got = "none" if model_type is None else repr(model_type)
        raise CheckpointError(f"{place}: expected {KINDS[kind]} (model_type {types}), got {got}")


def kind_of_folder(folder: Path) -> str | None:
    """The kind of checkpoint that a folder's configuration tells of, or None.

    Raises:
        CheckpointError: the configuration cannot be read.
    """
    if (folder / MARKER_FILES["diffusion"]).is_file():
        return "diffusion"
    model_type = read_json(folder / "config.json", "a model has one").get("model_type")
    return next((kind for kind, parts in COMPONENTS.items() if model_type in parts[0].model_types), None)


def weight_paths(root: Path, kind: str, part: str | None = None) -> list[Path]:
    """The weight files of a checkpoint, or of the part in one of its folders, without the index of shards."""
    files = [root / name for name in needed_files(kind, list_files(root, kind))[0]]
    return [path for path in files if path.suffix in (".safetensors", ".bin") and part in (None, path.parent.name)]


def read_json(path: Path, reason: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: there is no such file, or it is not JSON, not an object, or larger than 100 MB.
    """
    check_file_type(path)
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
