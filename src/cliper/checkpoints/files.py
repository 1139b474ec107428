"""Which files of a checkpoint are needed: one rule, by names only, for a hub listing, a cache and a local folder.

Full-precision safetensors are preferred, then shards of it, then PyTorch's own format. Variants (``.fp16.``,
``non_ema``), whole-pipeline files and the safety checker are not used.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "COMPONENTS",
    "MARKER_FILES",
    "TOKENIZER",
    "Component",
    "RequiredFiles",
    "has_tokenizer",
    "needed_files",
    "relative_names",
    "weight_files",
]

_TRANSFORMERS = ("model.safetensors", "pytorch_model.bin")
_DIFFUSERS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_TOKENIZER = (
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
        required: JSON files without which it cannot be used.
        optional: files that are downloaded too if the repository has them.
        weights: names of the weight file in order of preference; empty for a part without weights.
        model_types: what ``model_type`` in its ``config.json`` may be; empty where it is not checked.
    """

    folder: str = ""
    required: tuple[str, ...] = ("config.json",)
    optional: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    model_types: tuple[str, ...] = ()


COMPONENTS = {
    "clip": (
        Component(optional=("preprocessor_config.json", *_TOKENIZER), weights=_TRANSFORMERS, model_types=("clip",)),
    ),
    "dino": (Component(optional=("preprocessor_config.json",), weights=_TRANSFORMERS, model_types=("vit", "dinov2")),),
    "diffusion": (
        Component(required=("model_index.json",)),
        Component("scheduler", ("scheduler_config.json",)),
        Component("tokenizer", (), _TOKENIZER),
        Component("text_encoder", weights=_TRANSFORMERS, model_types=("clip_text_model", "clip")),
        Component("unet", weights=_DIFFUSERS),
        Component("vae", weights=_DIFFUSERS),
    ),
}

# The file that tells that a folder is meant to be a checkpoint of that kind.
MARKER_FILES = {kind: parts[0].required[0] for kind, parts in COMPONENTS.items()}


@dataclass(frozen=True)
class RequiredFiles:
    """The files to use, and descriptions of those that are missing."""

    files: tuple[str, ...]
    missing: tuple[str, ...]


def needed_files(kind: str, names: Iterable[str]) -> RequiredFiles:
    """Choose the needed files of a checkpoint.

    Args:
        kind: ``"clip"``, ``"diffusion"`` or ``"dino"``.
        names: all files that there are: paths with ``/``, relative to the checkpoint's folder.

    Example:
        >>> needed_files("dino", ["config.json", "pytorch_model.bin", "flax_model.msgpack"]).files
        ('config.json', 'pytorch_model.bin')
    """
    names = set(names)
    files: list[str] = []
    missing: list[str] = []
    for part in COMPONENTS[kind]:
        prefix = f"{part.folder}/" if part.folder else ""
        here = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
        weights, lacking = weight_files(here, part.weights)
        if _TOKENIZER[0] in part.optional and not has_tokenizer(here):
            lacking.append(TOKENIZER)
        files += [prefix + name for name in (*part.required, *part.optional) if name in here]
        files += [prefix + name for name in weights]
        missing += [prefix + name for name in (*(n for n in part.required if n not in here), *lacking)]
    return RequiredFiles(tuple(files), tuple(missing))


def has_tokenizer(names: Collection[str]) -> bool:
    """Whether the files of a folder include a tokenizer."""
    return "tokenizer.json" in names or {"vocab.json", "merges.txt"} <= set(names)


def relative_names(folder: Path) -> list[str]:
    """Names of the files in ``folder`` and its subfolders, with ``/``, as :func:`needed_files` takes them."""
    # is_file follows links: a snapshot in the hub's cache consists of links, and a dangling one is a missing file.
    # Not deeper: a folder given by mistake, such as "/", would be walked for hours.
    paths = [*folder.glob("*"), *folder.glob("*/*")]
    return sorted(path.relative_to(folder).as_posix() for path in paths if path.is_file())


def weight_files(names: Collection[str], candidates: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The weight files of a folder to use, and a description of those that are missing.

    The index of a sharded checkpoint comes first. The number of shards is in each of their names.

    Example:
        >>> weight_files(["model.bin.index.json", "model-1-of-2.bin"], ("model.bin",))
        (['model.bin.index.json', 'model-1-of-2.bin'], ['model-2-of-2.bin'])
    """
    for name in candidates:
        if name in names:
            return [name], []
        index = f"{name}.index.json"
        if index in names:
            stem, _, suffix = name.rpartition(".")
            # At most 5 digits: names are untrusted, and each missing shard is listed.
            pattern = re.compile(rf"{stem}-\d{{1,5}}-of-(\d{{1,5}})\.{suffix}")
            shards = {item: match[1] for item in sorted(names) if (match := pattern.fullmatch(item))}
            if not shards:
                return [index], [f"the weight files that {index} names"]
            total = next(iter(shards.values()))
            wanted = [f"{stem}-{i + 1:0{len(total)}d}-of-{total}.{suffix}" for i in range(int(total))]
            return [index, *shards], [shard for shard in wanted if shard not in shards]
    return [], [" or ".join(candidates)] if candidates else []
