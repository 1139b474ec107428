"""Which files of a checkpoint are needed: one rule, by names only, for a hub listing, a cache and a local folder.

Full-precision safetensors are preferred, then shards of it, then PyTorch's own format. Variants (``.fp16.``,
``non_ema``), whole-pipeline files and the safety checker are not used.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from cliper.errors import CheckpointError

__all__ = ["COMPONENTS", "MARKER_FILES", "TOKENIZER", "Component", "check_file_type", "list_files", "needed_files"]

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
TOKENIZER = "tokenizer.json (or vocab.json and merges.txt)"


@dataclass(frozen=True)
class Component:
    """One part of a checkpoint.

    Args:
        folder: its folder inside the checkpoint; empty for the checkpoint's own folder.
        config: its JSON file; empty for a part without one.
        tokenizer: whether it has a tokenizer.
        weights: names of the weight file in order of preference; empty for a part without weights.
        model_types: what ``model_type`` in its configuration may be; empty where it is not checked.
    """

    folder: str = ""
    config: str = "config.json"
    tokenizer: bool = False
    weights: tuple[str, ...] = ()
    model_types: tuple[str, ...] = ()


COMPONENTS = {
    "clip": (Component(tokenizer=True, weights=_TRANSFORMERS, model_types=("clip",)),),
    "dino": (Component(weights=_TRANSFORMERS, model_types=("vit", "dinov2")),),
    "diffusion": (
        Component(config="model_index.json"),
        Component("scheduler", "scheduler_config.json"),
        Component("tokenizer", "", tokenizer=True),
        Component("text_encoder", weights=_TRANSFORMERS, model_types=("clip_text_model", "clip")),
        Component("unet", weights=_DIFFUSERS),
        Component("vae", weights=_DIFFUSERS),
    ),
}

# The file that tells that a folder is meant to be a checkpoint of that kind.
MARKER_FILES = {kind: parts[0].config for kind, parts in COMPONENTS.items()}


def needed_files(kind: str, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Choose the needed files of a checkpoint.

    Args:
        kind: ``"clip"``, ``"diffusion"`` or ``"dino"``.
        names: all files that there are: paths with ``/``, relative to the checkpoint's folder.

    Returns:
        The files to use, and descriptions of those that are missing. A CLIP that lacks only :data:`TOKENIZER` can
        still encode images.

    Example:
        >>> needed_files("dino", ["config.json", "pytorch_model.bin", "flax_model.msgpack"])
        (['config.json', 'pytorch_model.bin'], [])
    """
    names = list(names)
    files: list[str] = []
    missing: list[str] = []
    for part in COMPONENTS[kind]:
        prefix = f"{part.folder}/" if part.folder else ""
        here = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
        found, lacking = _weight_files(here, part.weights)
        if part.config:
            (found if part.config in here else lacking).insert(0, part.config)
        if part.tokenizer:
            found += [name for name in _TOKENIZER_FILES if name in here]
            if "tokenizer.json" not in here and not here >= {"vocab.json", "merges.txt"}:
                lacking.append(TOKENIZER)
        files += [prefix + name for name in found]
        missing += [prefix + name for name in lacking]
    return files, missing


def list_files(folder: Path, kind: str) -> list[str]:
    """Names of the files in a checkpoint's folder and those of its parts, as :func:`needed_files` takes them.

    Raises:
        CheckpointError: an entry is a pipe, socket or device. transformers and diffusers open every file whose name
            they know, and opening a pipe could block for ever.
    """
    names = []
    for part in COMPONENTS[kind]:
        for path in sorted((folder / part.folder).glob("*")):
            check_file_type(path)
            if path.is_file():  # not a dangling link, such as the hub's cache has after it was cleaned by hand
                names.append(path.relative_to(folder).as_posix())
    return names


def check_file_type(path: Path) -> None:
    """Refuse a pipe, socket or device before it is opened; a missing file passes.

    Raises:
        CheckpointError: it is one.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise CheckpointError(f"{path}: expected a file, got a pipe, socket or device; remove it")


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
