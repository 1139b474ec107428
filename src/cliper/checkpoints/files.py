"""Which files of a checkpoint are needed: one rule for a hub listing, a cache and a local folder.

The rule is about names only. Full-precision safetensors come first, then shards of it, then PyTorch's own
format; variants (``.fp16.``, ``non_ema``), whole-pipeline files and the safety checker are never wanted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["COMPONENTS", "MARKER_FILES", "Component", "RequiredFiles", "needed_files", "relative_names", "weight_files"]

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


@dataclass(frozen=True)
class Component:
    """One part of a checkpoint.

    Args:
        folder: where it is inside the checkpoint; empty for the checkpoint's own folder.
        required: files without which it cannot be used.
        optional: files that are taken along if they are there.
        weights: names of the weight file in order of preference; empty for a part without weights.
        tokenizer: whether it is read by a tokenizer, which needs ``tokenizer.json`` or vocabulary and merges.
    """

    folder: str
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    tokenizer: bool = False


COMPONENTS = {
    "clip": (
        Component("", ("config.json",), ("preprocessor_config.json",), _TRANSFORMERS),
        Component("", optional=_TOKENIZER, tokenizer=True),
    ),
    "dino": (Component("", ("config.json",), ("preprocessor_config.json",), _TRANSFORMERS),),
    "diffusion": (
        Component("", ("model_index.json",)),
        Component("scheduler", ("scheduler_config.json",)),
        Component("tokenizer", optional=_TOKENIZER, tokenizer=True),
        Component("text_encoder", ("config.json",), weights=_TRANSFORMERS),
        Component("unet", ("config.json",), weights=_DIFFUSERS),
        Component("vae", ("config.json",), weights=_DIFFUSERS),
    ),
}

# The file whose presence says that a folder is meant to be a checkpoint of that kind.
MARKER_FILES = {"clip": "config.json", "dino": "config.json", "diffusion": "model_index.json"}


@dataclass(frozen=True)
class RequiredFiles:
    """The files to use, and what is not there, each as words for a message."""

    files: tuple[str, ...]
    missing: tuple[str, ...]


def needed_files(kind: str, names: Iterable[str]) -> RequiredFiles:
    """Choose the needed files of a checkpoint among ``names`` (paths with ``/``, relative to its root).

    Args:
        kind: ``"clip"``, ``"diffusion"`` or ``"dino"``.
        names: what is there.

    Example:
        >>> needed_files("dino", ["config.json", "pytorch_model.bin", "flax_model.msgpack"]).files
        ('config.json', 'pytorch_model.bin')
    """
    present = set(names)
    files: list[str] = []
    missing: list[str] = []
    for part in COMPONENTS[kind]:
        prefix = f"{part.folder}/" if part.folder else ""
        files += [prefix + name for name in part.required + part.optional if prefix + name in present]
        missing += [prefix + name for name in part.required if prefix + name not in present]
        if part.weights:
            chosen, absent = weight_files(present, prefix, part.weights)
            files += chosen
            missing += absent
        if part.tokenizer and not _has_tokenizer(present, prefix):
            missing.append(f"{prefix}tokenizer.json (or vocab.json and merges.txt)")
    return RequiredFiles(tuple(files), tuple(missing))


def weight_files(names: Iterable[str], prefix: str, candidates: Iterable[str]) -> tuple[list[str], list[str]]:
    """The weight files of one part, and what is missing of them.

    A sharded checkpoint is its index and all shards; how many there are is in every shard's name
    (``model-00001-of-00002.safetensors``).

    Example:
        >>> weight_files(["a/model.bin.index.json", "a/model-2-of-2.bin"], "a/", ["model.bin"])
        (['a/model.bin.index.json', 'a/model-2-of-2.bin'], ['a/model-1-of-2.bin'])
    """
    present = set(names)
    candidates = tuple(candidates)
    for name in candidates:
        if prefix + name in present:
            return [prefix + name], []
        index = f"{prefix}{name}.index.json"
        if index not in present:
            continue
        stem, _, suffix = name.rpartition(".")
        # No more than 5 digits: the names are untrusted, and each missing shard is listed below.
        pattern = re.compile(re.escape(prefix + stem) + r"-(\d{1,5})-of-(\d{1,5})\." + re.escape(suffix))
        shards = {match[0]: match for item in present if (match := pattern.fullmatch(item))}
        if not shards:
            return [index], [f"the weight files that {index} names"]
        total = next(iter(shards.values()))[2]
        wanted = [f"{prefix}{stem}-{i + 1:0{len(total)}d}-of-{total}.{suffix}" for i in range(int(total))]
        absent = [shard for shard in wanted if shard not in shards]
        more = [f"{len(absent) - 3:,} more such files"] if len(absent) > 3 else []
        return [index, *sorted(shards)], absent[:3] + more
    return [], [f"{prefix}{' or '.join(candidates)}"]


def relative_names(folder: Path) -> list[str]:
    """Names of the files in ``folder`` and its subfolders, with ``/``, as :func:`needed_files` takes them."""
    # A cache's snapshot is a folder of links to blobs: is_file follows them, so a dangling one is not there.
    # Not deeper: a folder given by mistake, such as "/", would be walked for hours.
    paths = [*folder.glob("*"), *folder.glob("*/*")]
    return sorted(path.relative_to(folder).as_posix() for path in paths if path.is_file())


def _has_tokenizer(names: set[str], prefix: str) -> bool:
    return prefix + "tokenizer.json" in names or {prefix + "vocab.json", prefix + "merges.txt"} <= names
