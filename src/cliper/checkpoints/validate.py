"""Which files a checkpoint needs, and cheap checks of them before anything is loaded. Input is untrusted.

One rule, by names only, serves a hub listing, a cache and a local folder: full-precision safetensors are preferred,
then shards of it, then PyTorch's own format. Variants (``.fp16.``, ``non_ema``), whole-pipeline files and the safety
checker are not used.
"""

from __future__ import annotations

import json
import math
import os
import re
import reprlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliper.checkpoints.registry import KINDS, check_kind
from cliper.checkpoints.tensors import iter_tensors
from cliper.errors import CheckpointError, short_reason

__all__ = [
    "COMPONENTS",
    "MARKER_FILES",
    "OPEN_CLIP_CONFIG",
    "Component",
    "check_folder",
    "check_model_type",
    "is_open_clip",
    "is_weight_file",
    "kind_of_folder",
    "list_files",
    "needed_files",
    "parts_of",
    "read_json",
    "weight_paths",
]

_TRANSFORMERS = ("model.safetensors", "pytorch_model.bin")
_DIFFUSERS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
_TOKENIZER = "tokenizer.json (or vocab.json and merges.txt)"
OPEN_CLIP_CONFIG = "open_clip_config.json"
"""The configuration of OpenCLIP."""

# Files that are read whole, by us, transformers or diffusers. Published ones have less than a third of the limit.
_READ_WHOLE = {
    *_TOKENIZER_FILES,
    *(
        "config.json",
        OPEN_CLIP_CONFIG,
        "model_index.json",
        "scheduler_config.json",
        "adapter_config.json",
        "chat_template.jinja",
    ),
    *(f"{name}.index.json" for name in (*_TRANSFORMERS, *_DIFFUSERS)),
}
_MAX_BYTES = 10_000_000
_MAX_TOKENIZER_BYTES = 200_000_000  # of tokenizer.json, which holds 900,000 tokens for MetaCLIP 2
_SIZES = ("_size", "_dim", "_channels", "_embeddings", "_timesteps")  # ends of the names of sizes in configurations


@dataclass(frozen=True)
class Component:
    """One part of a checkpoint.

    Args:
        folder: its folder inside the checkpoint; empty for the checkpoint's own folder.
        config: its JSON file; empty for a part without one.
        tokenizer: whether it has a tokenizer.
        weights: names of the weight file in order of preference; empty for a part without weights.
        model_types: what ``model_type`` in its configuration may be; empty where it is not checked.
        optional: whether a checkpoint may be without its folder.
    """

    folder: str = ""
    config: str = "config.json"
    tokenizer: bool = False
    weights: tuple[str, ...] = ()
    model_types: tuple[str, ...] = ()
    optional: bool = False


COMPONENTS = {
    "clip": (Component(tokenizer=True, weights=_TRANSFORMERS, model_types=("clip", "metaclip_2", "siglip", "tipsv2")),),
    "dino": (Component(weights=_TRANSFORMERS, model_types=("vit", "dinov2", "dinov3_vit")),),
    "diffusion": (
        Component(config="model_index.json"),
        Component("scheduler", "scheduler_config.json"),
        Component("tokenizer", "", tokenizer=True),
        Component("text_encoder", weights=_TRANSFORMERS, model_types=("clip_text_model", "clip")),
        Component("tokenizer_2", "", tokenizer=True, optional=True),  # of Stable Diffusion XL
        Component("text_encoder_2", weights=_TRANSFORMERS, model_types=("clip_text_model", "clip"), optional=True),
        Component("unet", weights=_DIFFUSERS),
        Component("vae", weights=_DIFFUSERS),
    ),
    "vae": (Component(weights=_DIFFUSERS),),
}
# A CLIP in OpenCLIP's layout, which a folder has that lacks config.json.
_OPEN_CLIP = Component(
    config=OPEN_CLIP_CONFIG, tokenizer=True, weights=("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
)

# The file that tells that a folder is meant to be a checkpoint of that kind.
MARKER_FILES = {kind: parts[0].config for kind, parts in COMPONENTS.items()}


def is_weight_file(path: Path, kind: str) -> bool:
    """Whether a checkpoint of that kind may be this single file, which only a CLIP of OpenCLIP or OpenAI may."""
    return kind == "clip" and path.suffix in (".pt", ".pth", ".bin", ".ckpt", ".safetensors") and path.is_file()


def is_open_clip(place: Path) -> bool:
    """Whether a CLIP is a weight file of OpenCLIP or OpenAI, or a folder in OpenCLIP's layout."""
    return place.is_file() or (not (place / "config.json").is_file() and (place / OPEN_CLIP_CONFIG).is_file())


def parts_of(kind: str, names: Collection[str]) -> tuple[Component, ...]:
    """The parts of a checkpoint that has files of these names."""
    if kind == "clip" and OPEN_CLIP_CONFIG in names and "config.json" not in names:
        return (_OPEN_CLIP,)
    return tuple(
        part
        for part in COMPONENTS[kind]
        if not part.optional or any(name.startswith(f"{part.folder}/") for name in names)
    )


def needed_files(place: str, kind: str, names: Iterable[str], *, tokenizer: bool = False) -> list[str]:
    """Choose the needed files of a checkpoint.

    Args:
        place: the checkpoint's folder or repository, for the message.
        kind: one of :data:`.KINDS`.
        names: all files that there are: paths with ``/``, relative to the checkpoint's folder.
        tokenizer: whether a CLIP must have one; images can be encoded without it.

    Raises:
        CheckpointError: a needed file is missing.

    Example:
        >>> needed_files("folder", "dino", ["config.json", "pytorch_model.bin", "flax_model.msgpack"])
        ['config.json', 'pytorch_model.bin']
    """
    names = list(names)
    files: list[str] = []
    missing: list[str] = []
    for part in parts_of(kind, names):
        prefix = f"{part.folder}/" if part.folder else ""
        here = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
        found, lacking = _weight_files(here, part.weights)
        if part.config:
            (found if part.config in here else lacking).insert(0, part.config)
        if part.tokenizer:
            found += [name for name in _TOKENIZER_FILES if name in here]
            if (tokenizer or part.folder) and "tokenizer.json" not in here and not here >= {"vocab.json", "merges.txt"}:
                lacking.append(_TOKENIZER)
        files += [prefix + name for name in found]
        missing += [prefix + name for name in lacking]
    if missing:
        raise CheckpointError(
            f"{place}: expected {KINDS[kind]}, got no {', no '.join(missing[:3])}; give a complete one"
        )
    return files


def list_files(folder: Path, kind: str) -> list[str]:
    """Names of the files in a checkpoint's folder and those of its parts, as :func:`needed_files` takes them.

    Raises:
        CheckpointError: an entry is a pipe, socket or device, or larger than any such file. transformers and diffusers
            open every file whose name they know, and opening a pipe could block for ever.
    """
    names = []
    for part in COMPONENTS[kind]:
        for path in sorted((folder / part.folder).glob("*")):
            _check_file(path)
            if path.is_file():  # not a dangling link, such as the hub's cache has after it was cleaned by hand
                names.append(path.relative_to(folder).as_posix())
    return names


def check_folder(folder: str | os.PathLike[str], kind: str) -> None:
    """Check that a folder holds a checkpoint of a kind, complete as far as names, sizes and headers tell.

    A CLIP folder without a tokenizer passes: images can be encoded without one.

    Args:
        folder: in ``transformers``' layout (``diffusers``' for ``kind="diffusion"``); a CLIP may be in OpenCLIP's, or a
            weight file of OpenCLIP or OpenAI.
        kind: one of :data:`.KINDS`.

    Raises:
        CheckpointError: it is not a folder, a file is missing, truncated, too large or not what its name says, an
            entry is a pipe, socket or device, or the checkpoint is of another kind or impossibly large.

    Example:
        >>> from cliper.checkpoints import resolve
        >>> check_folder(resolve("mini", "clip").folder, "clip")
    """
    check_kind(kind)
    root = Path(folder)
    if is_weight_file(root, kind):
        files = []
    elif not root.is_dir():
        what = "a file" if root.exists() else "nothing there"
        raise CheckpointError(f"{root}: expected the folder of {KINDS[kind]}, got {what}")
    else:
        files = needed_files(str(root), kind, list_files(root, kind))
    for index in (root / name for name in files if name.endswith(".index.json")):
        # transformers opens every path that the index names.
        shards = {path.name for path in weight_paths(root, kind) if path.parent == index.parent}
        weight_map = read_json(index, "it names the shard of each tensor").get("weight_map")
        if not isinstance(weight_map, dict) or {*map(str, weight_map.values())} != shards:
            raise CheckpointError(
                f"{index}: expected a 'weight_map' with the names of the {len(shards)} shards; download it again"
            )
    for part in parts_of(kind, files):
        if part.config and files:
            path = root / part.folder / part.config
            config = read_json(path, f"{KINDS[kind]} has one")
            check_model_type(str(path), kind, part, config.get("model_type"))
            _check_values(path, config)
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
    if is_open_clip(folder):
        return "clip"
    config = read_json(folder / "config.json", "a model has one")
    if config.get("_class_name") == "AutoencoderTiny":
        return "vae"
    model_type = config.get("model_type")
    return next((kind for kind, parts in COMPONENTS.items() if model_type in parts[0].model_types), None)


def weight_paths(root: Path, kind: str, part: str | None = None) -> list[Path]:
    """The weight files of a checkpoint, or of the part in one of its folders, without the index of shards; of a weight
    file that file.

    Raises:
        CheckpointError: the checkpoint is not complete.
    """
    if root.is_file():
        return [root]
    files = [root / name for name in needed_files(str(root), kind, list_files(root, kind))]
    return [path for path in files if path.suffix in (".safetensors", ".bin") and part in (None, path.parent.name)]


def read_json(path: Path, reason: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: there is no such file, or it is not JSON, not an object, or too large.
    """
    _check_file(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent}: expected {path.name} ({reason}), got none") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: expected JSON, could not read it: {short_reason(error)}") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(data).__name__}")
    return data


def _check_file(path: Path) -> None:
    """Refuse a pipe, socket or device, or too large a file, before it is opened; a missing file passes."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise CheckpointError(f"{path}: expected a file, got a pipe, socket or device; remove it")
    limit = _MAX_TOKENIZER_BYTES if path.name == "tokenizer.json" else _MAX_BYTES
    if path.name in _READ_WHOLE and path.is_file() and (size := path.stat().st_size) > limit:
        raise CheckpointError(f"{path}: expected at most {limit:,} bytes, got {size:,}; download it again")


def _check_values(path: Path, config: dict[str, Any]) -> None:
    """Refuse sizes that no model has, at any depth: building a model of a million layers takes hours."""
    items: list[tuple[str, Any]] = list(config.items())
    while items:
        name, value = items.pop()
        limit = 200 if "layers" in name else 1_000_000 if name.endswith(_SIZES) else math.inf
        if isinstance(value, dict):
            items += value.items()
        elif isinstance(value, list) and limit < math.inf:
            if len(value) > 100:
                raise CheckpointError(f"{path}: expected at most 100 values of {name}, got {len(value):,}")
            items += [(name, item) for item in value]
        elif isinstance(value, int | float) and value > limit:
            raise CheckpointError(f"{path}: expected {name} of at most {limit:,}, got {reprlib.repr(value)}")


def _weight_files(names: Collection[str], candidates: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The weight files of a folder to use, and a description of those that are missing.

    The index of a sharded checkpoint comes first. The number of shards is in each of their names.
    """
    for name in candidates:
        if name in names:
            return [name], []
        index = f"{name}.index.json"
        if index in names:
            stem, _, suffix = name.rpartition(".")
            pattern = re.compile(rf"{stem}-\d+-of-(\d+)\.{suffix}")
            totals = {item: int(match[1]) for item in sorted(names) if (match := pattern.fullmatch(item))}
            total = max(totals.values(), default=1)
            missing = [] if len(totals) == total else [f"complete set of shards for {index} (found {len(totals)})"]
            return [index, *totals], missing
    similar = sorted(name for name in names if name.endswith((".safetensors", ".bin", ".pt", ".ckpt")))
    found = f" (found {', '.join(similar[:3])})" if similar else ""
    return [], [" or ".join(candidates) + found] if candidates else []
