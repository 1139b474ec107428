"""Which models and refiners a visitor may choose, and loading them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from cliper.cache import LRUTextCache
from cliper.checkpoints import entries, recommended_settings, resolve
from cliper.errors import CheckpointError, InputError
from cliper.prompts import scene_background
from cliper.refiners import refiner_names
from cliper.segmenter import Segmenter
from cliper.settings import Settings
from cliper.web.names import public_name

__all__ = ["Models", "Offer"]


@dataclass(frozen=True)
class Offer:
    """What can be chosen.

    Args:
        name: what the choice is called: an alias, or the name that the operator gave, without its folder.
        here: whether it lies on this machine.
    """

    name: str
    here: bool

    @property
    def label(self) -> str:
        """For a list of choices."""
        return self.name if self.here else f"{self.name} (not on this machine)"


class Models:
    """The segmenter named on the command line, aliases of the registry, and nothing else.

    Visitors' choices never fetch anything and never reach a folder or a hub name of theirs.

    What visitors type is encoded once for all of them, and kept in memory only: on disk it would grow with what
    strangers think of. The built-in background words of a model that is loaded do stay on disk, for the next start.

    Args:
        start: as the command line described it; it stays loaded.
        load: from an alias of a CLIP that is on this machine to a segmenter without a refiner.
        most: segmenters that are kept loaded besides ``start``; those used last stay.
        texts: text embeddings that are kept, of all models together; those used last stay.

    Raises:
        CliperError: ``start`` cannot read the built-in background words.
    """

    def __init__(
        self, start: Segmenter, load: Callable[[str], Segmenter], *, most: int = 1, texts: int = 20_000
    ) -> None:
        self._texts = LRUTextCache(texts, fallback=start.cache)
        self.start = self._ready(start)
        self.start_model = public_name(start.checkpoint.name)
        self.start_refiner = "none" if start.refiner is None else public_name(str(start.refiner.name))
        self._load = load
        self._most = most
        self._lock = threading.Lock()
        self._loaded: OrderedDict[tuple[str, str], Segmenter] = OrderedDict()

    def models(self) -> list[Offer]:
        """The CLIPs, those that are here first."""
        others = [e.alias for e in entries("clip") if e.alias != self.start_model]
        offers = [Offer(name, _is_here(name)) for name in others]
        return [Offer(self.start_model, True), *sorted(offers, key=lambda offer: not offer.here)]

    def refiners(self) -> list[Offer]:
        """The refiners, those that are here first, ``none`` at the top."""
        names = [name for name in refiner_names() if name != self.start_refiner]
        offers = [Offer(name, name in ("none", "self") or _is_here(name)) for name in names]
        offers.append(Offer(self.start_refiner, True))
        return sorted(offers, key=lambda offer: (offer.name != "none", not offer.here))

    def settings(self, model: str) -> Settings:
        """What a model starts with: the operator's settings, or those recommended for it.

        Raises:
            CliperError: no such choice, or one that is not on this machine.
        """
        self._check(model, self.models(), "model")
        if model == self.start_model:
            return self.start.settings
        return recommended_settings(resolve(model, "clip", download=False))

    def is_loaded(self, model: str, refiner: str) -> bool:
        """Whether :meth:`get` would give it at once.

        Raises:
            InputError: no such choice.
        """
        self._check(model, self.models(), "model")
        self._check(refiner, self.refiners(), "refiner")
        return (model, refiner) in self._loaded or (model, refiner) == (self.start_model, self.start_refiner)

    def get(self, model: str, refiner: str) -> Segmenter:
        """The segmenter of a choice, with the settings of :meth:`settings`; loaded if it is not yet.

        Raises:
            InputError: no such choice.
            CheckpointError: it is not on this machine, or is broken.
            ResourceError: memory ran out.
        """
        self._check(model, self.models(), "model")
        self._check(refiner, self.refiners(), "refiner")
        key = (model, refiner)
        with self._lock:
            if key == (self.start_model, self.start_refiner):
                return self.start
            if key not in self._loaded:
                self._require(model, refiner)
                base = self._without_refiner(model)
                self._loaded[key] = base if refiner == "none" else self._with_refiner(base, refiner)
            self._loaded.move_to_end(key)
            while len(self._loaded) > self._most:
                self._loaded.popitem(last=False)
            return self._loaded[key]

    def _without_refiner(self, model: str) -> Segmenter:
        """A segmenter of the CLIP alone; one that is loaded with any refiner will do."""
        if model == self.start_model:
            return self.start.with_refiner(None)
        for (name, _), segmenter in self._loaded.items():
            if name == model:
                return segmenter.with_refiner(None)
        return self._ready(self._load(model))

    def _ready(self, loaded: Segmenter) -> Segmenter:
        """The same for words of visitors, once the built-in ones are known."""
        loaded.encode_text(scene_background([]))
        ready = loaded.with_settings(loaded.settings)
        ready.cache = self._texts
        return ready

    def _with_refiner(self, base: Segmenter, refiner: str) -> Segmenter:
        if refiner == self.start_refiner and refiner != "self":  # its weights are there; "self" reads the encoder's
            other = base.with_refiner(None)
            other.refiner = self.start.refiner
            return other
        return base.with_refiner(refiner)

    def _require(self, model: str, refiner: str) -> None:
        """Refuse what would have to be fetched.

        Raises:
            CheckpointError: the message says how the operator can fetch it.
        """
        if model != self.start_model:
            resolve(model, "clip", download=False)
        if refiner not in ("none", "self", self.start_refiner):
            resolve(refiner, _kind(refiner), download=False)

    @staticmethod
    def _check(name: str, offers: list[Offer], what: str) -> None:
        if name not in [offer.name for offer in offers]:
            raise InputError(f"{what}: expected one of {', '.join(o.name for o in offers)}, got {str(name)[:60]!r}")


def _kind(alias: str) -> str:
    return next(entry.kind for entry in entries() if entry.alias == alias)


def _is_here(alias: str) -> bool:
    try:
        resolve(alias, _kind(alias), download=False)
    except CheckpointError:
        return False
    return True
