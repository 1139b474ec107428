"""From a refiner's name to a refiner."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliper.checkpoints import ResolvedCheckpoint, check_folder, entries, find_entry, resolve
from cliper.checkpoints.registry import entry_of_repo, nearest_aliases, replacement_for
from cliper.checkpoints.validate import read_json
from cliper.errors import RefinerError, SettingsError

if TYPE_CHECKING:
    import torch

    from cliper.refiners.base import Refiner
    from cliper.settings import Settings

__all__ = ["check_proxy", "check_refiner", "load_refiner", "refiner_checkpoint", "refiner_names"]

_DINO_TYPES = ("vit", "dinov2")


def refiner_names() -> tuple[str, ...]:
    """The names that need no hub name or folder.

    Example:
        >>> refiner_names()[:3]
        ('none', 'self', 'sd2.1')
    """
    return ("none", "self", *(entry.alias for kind in ("diffusion", "dino") for entry in entries(kind)))


def check_refiner(name: str) -> None:
    """Check that a name can mean a refiner, before anything is fetched or loaded.

    Raises:
        RefinerError: there is no such refiner; the message lists those that there are.
    """
    if name.strip().lower() not in ("none", "", "self"):
        _kind(name.strip())


def check_proxy(settings: Settings) -> None:
    """Check that ``proxy_model`` can mean a DINO where ``attention`` is ``"proxy"``, before anything is fetched.

    Raises:
        SettingsError: it means something else, or nothing.
    """
    if settings.attention != "proxy":
        return
    name = settings.proxy_model.strip()
    dinos = ", ".join(entry.alias for entry in entries("dino"))
    expected = f"proxy_model: expected a DINO for attention 'proxy' ({dinos}, a hub name or a folder), got {name!r}"
    if name.lower() in ("none", "self"):
        raise SettingsError(expected)
    try:
        kind = _kind(name)
    except RefinerError:
        raise SettingsError(expected) from None
    if kind != "dino":
        raise SettingsError(expected)


def refiner_checkpoint(name: str | os.PathLike[str] | None) -> ResolvedCheckpoint | None:
    """Where a refiner's weights lie, fetched first if they are not there; None where it has none of its own.

    Raises:
        RefinerError: there is no such refiner; the message lists those that there are.
        CheckpointError: weights that cannot be fetched.
    """
    text = "none" if name is None else os.fspath(name).strip()
    return None if text.lower() in ("none", "", "self") else resolve(text, _kind(text))


def load_refiner(
    name: str | os.PathLike[str] | None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    encoder: Any = None,
) -> Refiner | None:
    """Load a refiner, fetching it first if it is not there.

    Args:
        name: None or ``"none"``; ``"sd2.1"``, ``"sd1.5"``, ``"sd1.4"``; ``"dino-s16"``, ``"dinov2-b14"`` and
            the like; ``"self"`` (the CLIP's own middle layers, no download); a hub name; or a local folder,
            a diffusers pipeline or a ViT or DINOv2 of transformers.
        device: where to run; None takes a CUDA device if there is one.
        dtype: of the networks; None is float32 on a CPU and float16 elsewhere.
        encoder: the CLIP encoder, for ``"self"``.

    Returns:
        The refiner, or None for none.

    Raises:
        RefinerError: there is no such refiner; the message lists those that there are.
        CheckpointError: weights that are missing, broken, of another kind, or cannot be fetched.
        ResourceError: memory ran out.
    """
    import torch

    text = "none" if name is None else os.fspath(name).strip()
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    number = dtype or (torch.float32 if where.type == "cpu" else torch.float16)
    if text.lower() == "self":
        if encoder is None:
            raise RefinerError("refiner 'self' reads the CLIP encoder's own layers; expected one, got none")
        from cliper.refiners.self_similarity import SelfSimilarityRefiner

        return SelfSimilarityRefiner(encoder)
    found = refiner_checkpoint(text)
    if found is None:
        return None
    if found.kind == "diffusion":
        from cliper.refiners.diffusion.loading import check_pipeline_class

        check_pipeline_class(found.folder)
    check_folder(found.folder, found.kind)
    origin: dict[str, Any] = {
        "name": found.name,
        "source": found.repo or str(found.folder),
        "revision": found.revision,
    }
    if found.kind == "diffusion":
        from cliper.refiners.diffusion import DiffusionRefiner

        return DiffusionRefiner(found.folder, device=where, dtype=number, **origin)
    from cliper.refiners.dino import DinoRefiner

    return DinoRefiner(found.folder, device=where, dtype=number, **origin)


def _kind(text: str) -> str:
    """Whether a name means a diffusion pipeline or a DINO.

    Raises:
        RefinerError: neither.
    """
    entry = find_entry(text)
    folder = Path(text).expanduser()
    if folder.is_dir() and (entry is None or _looks_like_checkpoint(folder)):
        return _kind_of_folder(folder)
    if entry is None:
        repo = text.partition("@")[0]
        entry = find_entry(replacement_for(repo) or "") or entry_of_repo(repo)
    if entry is not None:
        if entry.kind not in ("diffusion", "dino"):
            raise RefinerError(f"{text} is a CLIP checkpoint, not a refiner; refiners: {', '.join(refiner_names())}")
        return entry.kind
    if text.count("/") != 1 or text.startswith((".", "/", "~")):
        near = [*nearest_aliases(text, "diffusion"), *nearest_aliases(text, "dino")]
        hint = f" (near it: {', '.join(near[:4])})" if len(near) < len(refiner_names()) - 2 else ""
        raise RefinerError(
            f"no refiner is called {text!r}{hint}; expected one of {', '.join(refiner_names())}, "
            f"a hub name (owner/name), or a folder with a diffusers pipeline or a DINO"
        )
    # A hub name that nobody has described: what is fetched is checked against this guess.
    return "dino" if "dino" in text.lower() else "diffusion"


def _looks_like_checkpoint(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("model_index.json", "config.json"))


def _kind_of_folder(folder: Path) -> str:
    if (folder / "model_index.json").is_file():
        return "diffusion"
    got = "neither model_index.json nor config.json"
    if (folder / "config.json").is_file():
        model_type = read_json(folder / "config.json", "a model has one").get("model_type")
        if model_type in _DINO_TYPES:
            return "dino"
        got = f"a model of type {model_type!r}"
    raise RefinerError(
        f"{folder}: expected a Stable Diffusion pipeline in diffusers' layout (with model_index.json) or a ViT "
        f"or DINOv2 of transformers (config.json with model_type {' or '.join(_DINO_TYPES[:2])}), got {got}"
    )
