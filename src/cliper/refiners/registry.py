"""From a refiner's name to a refiner."""

import difflib
import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from weakref import WeakValueDictionary

import torch

from cliper.checkpoints import ResolvedCheckpoint, entries, find_entry, resolve
from cliper.checkpoints.registry import KINDS, entry_of_repo, replacement_for
from cliper.checkpoints.validate import kind_of_folder
from cliper.devices import convert_out_of_memory, resolve_device
from cliper.encoders.base import Encoder
from cliper.errors import RefinerError, SettingsError
from cliper.refiners.base import Refiner
from cliper.refiners.diffusion import DiffusionRefiner
from cliper.refiners.dino import DinoRefiner
from cliper.refiners.self_similarity import SelfSimilarityRefiner
from cliper.settings import Settings

__all__ = [
    "RefinerLoader",
    "check_proxy",
    "check_refiner",
    "load_refiner",
    "refiner_checkpoint",
    "refiner_kind",
    "refiner_names",
]

_LOG = logging.getLogger("cliper.refiners")
_WITHOUT_WEIGHTS = ("none", "", "self")


def refiner_names() -> tuple[str, ...]:
    """The names that need no hub name or folder.

    Example:
        >>> refiner_names()[:3]
        ('none', 'self', 'sd2.1')
    """
    return ("none", "self", *(entry.alias for kind in ("diffusion", "dino") for entry in entries(kind)))


def check_refiner(name: str) -> None:
    """Check that a name can mean a refiner, before anything is downloaded or loaded.

    Raises:
        RefinerError: there is no such refiner; the message lists all.
    """
    if name.strip().lower() not in _WITHOUT_WEIGHTS:
        _kind(name.strip())


def refiner_kind(name: str) -> str:
    """``"none"``, ``"self"``, ``"diffusion"`` or ``"dino"``; nothing is downloaded.

    Raises:
        RefinerError: there is no such refiner; the message lists all.

    Example:
        >>> refiner_kind("sd2.1"), refiner_kind("self")
        ('diffusion', 'self')
    """
    text = name.strip()
    return text.lower() or "none" if text.lower() in _WITHOUT_WEIGHTS else _kind(text)


def check_proxy(settings: Settings) -> None:
    """Check that ``proxy_model`` can mean a DINO where ``attention`` is ``"proxy"``, before anything is downloaded.

    Raises:
        SettingsError: it means something else, or nothing.
    """
    if settings.attention != "proxy":
        return
    name = settings.proxy_model.strip()
    kind = None
    if name.lower() not in _WITHOUT_WEIGHTS:
        with suppress(RefinerError):
            kind = _kind(name)
    if kind != "dino":
        dinos = ", ".join(entry.alias for entry in entries("dino"))
        raise SettingsError(
            f"proxy_model: expected a DINO for attention 'proxy' ({dinos}, a hub name or a folder), got {name!r}"
        )


def refiner_checkpoint(name: str | os.PathLike[str] | None) -> ResolvedCheckpoint | None:
    """The folder of a refiner's weights, downloaded first if needed; None for a refiner without weights of its own.

    Raises:
        RefinerError: there is no such refiner; the message lists all.
        CheckpointError: weights that cannot be downloaded.
    """
    text = "none" if name is None else os.fspath(name).strip()
    return None if text.lower() in _WITHOUT_WEIGHTS else resolve(text, _kind(text))


def load_refiner(
    name: str | os.PathLike[str] | None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    encoder: Encoder | None = None,
) -> Refiner | None:
    """Load a refiner, downloaded first if needed.

    Args:
        name: None or ``"none"``; ``"sd2.1"``, ``"sd1.5"``, ``"sd1.4"``; ``"dino-s16"``, ``"dinov2-b14"`` and
            the like; ``"self"`` (the CLIP's own middle layers, no download); a hub name; or a local folder,
            a diffusers pipeline or a ViT, DINOv2 or DINOv3 of transformers.
        device: where to run; None takes a CUDA device if there is one.
        dtype: of the networks; None is float32 on a CPU and float16 elsewhere.
        encoder: the CLIP encoder, for ``"self"``.

    Returns:
        The refiner, or None for ``"none"``.

    Raises:
        RefinerError: there is no such refiner; the message lists all.
        CheckpointError: weights that are missing, broken, of another kind, or cannot be downloaded.
        SettingsError: a device that this machine does not have.
        ResourceError: out of memory.
    """
    if name is not None and os.fspath(name).strip().lower() == "self":
        if encoder is None:
            raise RefinerError("refiner 'self' reads the CLIP encoder's own layers; expected one, got none")
        return SelfSimilarityRefiner(encoder)
    checkpoint = refiner_checkpoint(name)
    if checkpoint is None:
        return None
    device = resolve_device(device)
    dtype = dtype or (torch.float32 if device.type == "cpu" else torch.float16)
    refiner_class = DiffusionRefiner if checkpoint.kind == "diffusion" else DinoRefiner
    started = time.perf_counter()
    with convert_out_of_memory(f"loading refiner {checkpoint.name}", "use a smaller refiner such as dino-s16, or none"):
        refiner = refiner_class(checkpoint.folder, name=checkpoint.name, device=device, dtype=dtype)
    _LOG.info("refiner %s on %s in %s; loaded in %.2f s", checkpoint, device, dtype, time.perf_counter() - started)
    return refiner


class RefinerLoader:
    """Loads refiners for one encoder. A DINO in use, as refiner or for ``attention="proxy"``, is loaded once.

    Args:
        encoder: for ``"self"``, and whose device the others run on.
        dtype: as for :func:`load_refiner`.
    """

    def __init__(self, encoder: Encoder, dtype: torch.dtype | None = None) -> None:
        self._encoder = encoder
        self._dtype = dtype
        self._dinos: WeakValueDictionary[str, DinoRefiner] = WeakValueDictionary()

    def load(self, name: str) -> Refiner | None:
        """:func:`load_refiner`, or a DINO that is in use."""
        name = name.strip()
        refiner: Refiner | None = self._dinos.get(name)
        if refiner is None:
            refiner = load_refiner(name, device=self._encoder.device, dtype=self._dtype, encoder=self._encoder)
            if isinstance(refiner, DinoRefiner):
                self._dinos[name] = refiner
        return refiner


def _kind(text: str) -> str:
    """Whether a name means a diffusion pipeline or a DINO.

    Raises:
        RefinerError: neither.
    """
    entry = find_entry(text)
    folder = Path(text).expanduser()
    has_config = any((folder / name).is_file() for name in ("model_index.json", "config.json"))
    if has_config or (entry is None and folder.is_dir()):
        return _kind_of_folder(folder, has_config)
    if entry is None:
        repo = text.partition("@")[0]
        entry = find_entry(replacement_for(repo) or "") or entry_of_repo(repo)
    if entry is not None:
        if entry.kind not in ("diffusion", "dino"):
            what = KINDS[entry.kind]
            raise RefinerError(f"{text} is {what}, not a refiner; refiners: {', '.join(refiner_names())}")
        return entry.kind
    if text.count("/") != 1 or text.startswith((".", "/", "~")):
        near = difflib.get_close_matches(text.lower(), refiner_names(), n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise RefinerError(
            f"no refiner is called {text!r}{hint}; expected one of {', '.join(refiner_names())}, "
            f"a hub name (owner/name), or a folder with a diffusers pipeline or a DINO"
        )
    # A hub name that is not in the registry is a guess; the download is checked against it.
    return "dino" if "dino" in text.lower() else "diffusion"


def _kind_of_folder(folder: Path, has_config: bool) -> str:
    kind = kind_of_folder(folder) if has_config else None
    if kind not in ("diffusion", "dino"):
        got = "a CLIP" if kind == "clip" else "another model" if has_config else "neither"
        raise RefinerError(
            f"{folder}: expected a Stable Diffusion pipeline in diffusers' layout (with model_index.json) or a ViT, "
            f"DINOv2 or DINOv3 of transformers (with config.json), got {got}"
        )
    return kind
