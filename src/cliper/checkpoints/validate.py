"""Cheap checks of a checkpoint's folder before anything is loaded: headers and names, never whole files."""

from __future__ import annotations

import json
import os
import stat
import struct
import zipfile
from pathlib import Path
from typing import Any

from cliper.checkpoints.download import MODEL_TYPES
from cliper.checkpoints.files import COMPONENTS, Component, needed_files, relative_names, weight_files
from cliper.checkpoints.registry import KINDS, check_kind
from cliper.errors import CheckpointError

__all__ = ["check_folder", "check_weight_file", "read_json", "weight_paths"]

# A header lists names and shapes; safetensors itself refuses one above this.
_MAX_HEADER = 100_000_000
_MAX_JSON = 100_000_000  # bytes; the largest, an index of shards, has less than one million
_POINTER = b"version https://git-lfs"


def check_folder(folder: str | os.PathLike[str], kind: str) -> None:
    """Check that a folder holds a checkpoint of a kind, whole as far as sizes and headers can tell.

    A CLIP folder without a tokenizer passes: pictures can be encoded without one.

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
    # transformers and diffusers open whatever has a name that they know; opening a pipe could wait for ever.
    for name in {part.folder for part in COMPONENTS[kind]}:
        for path in (root / name).iterdir() if (root / name).is_dir() else ():
            if path.exists() and not path.is_dir():
                _check_regular(path)
    if kind == "diffusion":
        _check_pipeline(root)
    else:
        config = read_json(root / "config.json", f"{KINDS[kind]} has one")
        _check_model_type(root / "config.json", config, MODEL_TYPES[kind], KINDS[kind])
    for part in COMPONENTS[kind]:
        if part.weights:
            for path in weight_paths(root, part):
                check_weight_file(path)


def weight_paths(root: Path, part: Component) -> list[Path]:
    """The weight files of one part of a checkpoint, without the index of a sharded one.

    Raises:
        CheckpointError: there is none, or a shard is missing.
    """
    home = root / part.folder if part.folder else root
    names = [path.name for path in home.iterdir()] if home.is_dir() else []
    files, missing = weight_files(names, "", part.weights)
    if not files:
        like = sorted(name for name in names if name.endswith((".safetensors", ".bin", ".pt", ".ckpt")))
        found = f" (found {', '.join(like[:3])})" if like else ""
        raise CheckpointError(f"{home}: expected a weight file, {' or '.join(part.weights)}, got none{found}")
    if files[0].endswith(".index.json"):
        index = read_json(home / files[0], "it lists the shards")
        shards = index.get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise CheckpointError(f"{home / files[0]}: expected a 'weight_map', got none; download it again")
        # The index has the last word; names only said which files belong together.
        files = sorted({str(name) for name in shards.values()})
        missing = [name for name in files if name not in names]
    if missing:
        raise CheckpointError(
            f"{home}: the weights are in {len(files)} files, and {', '.join(missing[:3])} is missing; download it again"
        )
    return [home / name for name in files]


def check_weight_file(path: Path) -> None:
    """Check the form and length of one weight file, by its header and its end.

    Raises:
        CheckpointError: it is empty, truncated, or something else.
    """
    try:
        size = path.stat().st_size
        _check_regular(path)
        with path.open("rb") as stream:
            start = stream.read(24)
    except OSError as error:
        raise CheckpointError(f"{path}: the weight file cannot be read: {error.strerror or error}") from None
    if size == 0:
        raise CheckpointError(f"{path}: expected weights, got an empty file; download it again")
    if start.startswith(_POINTER):
        raise CheckpointError(f"{path}: expected weights, got a Git LFS pointer to them; run `git lfs pull`")
    if path.suffix == ".safetensors":
        _check_safetensors(path, size, start)
    elif start.startswith(b"PK"):
        if not zipfile.is_zipfile(path):  # its directory is at its end
            raise CheckpointError(f"{path}: the weight file is truncated ({size} bytes); download it again")
    elif not start.startswith(b"\x80"):  # PyTorch before 1.6 wrote bare pickles, whose length nothing tells
        raise CheckpointError(f"{path}: expected PyTorch weights, got something else; download it again")


def read_json(path: Path, reason: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: there is no such file, or it is not JSON, not an object, or larger than 100 MB.
    """
    try:
        _check_regular(path)
        if path.stat().st_size > _MAX_JSON:
            raise OSError(f"it has more than {_MAX_JSON:,} bytes")
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent}: expected {path.name} ({reason}), got none") from None
    except (OSError, ValueError, RecursionError) as error:
        words = " ".join(str(error).split())[:120]
        raise CheckpointError(f"{path}: expected JSON, could not read it: {words}") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(data).__name__}")
    return data


def _check_regular(path: Path) -> None:
    """Refuse a pipe, socket or device before it is opened."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise CheckpointError(f"{path}: expected a file, got a pipe, socket or device; remove it")


def _check_pipeline(root: Path) -> None:
    read_json(root / "model_index.json", f"{KINDS['diffusion']} in diffusers' layout has one")
    for part in COMPONENTS["diffusion"]:
        if part.folder and not (root / part.folder).is_dir():
            raise CheckpointError(f"{root}: expected {KINDS['diffusion']} with a folder {part.folder}, got none")
        for name in part.required:
            read_json(root / part.folder / name, "the pipeline needs it")
    config = read_json(root / "text_encoder" / "config.json", "the pipeline needs it")
    _check_model_type(root / "text_encoder" / "config.json", config, ("clip_text_model", "clip"), "a CLIP text encoder")
    missing = [name for name in needed_files("diffusion", relative_names(root)).missing if "tokenizer" in name]
    if missing:
        raise CheckpointError(f"{root}: expected {missing[0]}, got none; the empty prompt needs it")


def _check_model_type(path: Path, config: dict[str, Any], expected: tuple[str, ...], what: str) -> None:
    got = config.get("model_type")
    if got not in expected:
        names = " or ".join(repr(name) for name in expected)
        came = repr(got) if got is not None else "none"
        raise CheckpointError(f"{path}: expected {what} (model_type {names}), got {came}")


def _check_safetensors(path: Path, size: int, start: bytes) -> None:
    def garbage(words: str) -> CheckpointError:
        return CheckpointError(f"{path}: expected safetensors, {words}; download it again")

    if size < 8:
        raise garbage(f"got {size} bytes")
    (length,) = struct.unpack("<Q", start[:8])
    if not 2 <= length <= _MAX_HEADER:
        raise garbage("got something else")
    if 8 + length > size:
        raise garbage(f"got a file that ends inside its header ({size} bytes)")
    with path.open("rb") as stream:
        stream.seek(8)
        text = stream.read(length)
    try:
        header = json.loads(text)
        ends = [int(item["data_offsets"][1]) for name, item in header.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise garbage("got a header that cannot be read") from None
    if not ends:
        raise garbage("got a file without any tensor")
    expected = 8 + length + max(ends)
    if size != expected:
        state = "is truncated" if size < expected else "is too long"
        raise CheckpointError(
            f"{path}: the weight file {state}: its header says {expected} bytes, the file has {size}; download it again"
        )
