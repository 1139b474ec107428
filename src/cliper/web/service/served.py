"""The model that is served, and how much work may be asked of it."""

from __future__ import annotations

from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any

from cliper.cache import LRUTextCache
from cliper.errors import SettingsError
from cliper.images import resized_shape
from cliper.ops.windows import window_grid
from cliper.segmenter import Segmenter
from cliper.settings import Settings
from cliper.web.names import public_name
from cliper.web.service.limits import Limits
from cliper.web.service.refusal import Refusal

__all__ = ["Served"]

_KEPT_TEXTS = 20_000  # embeddings in memory: 40 MB at a width of 512
_REFINE_SIDE = 512
_REFINE_PATCHES = 4096  # of an image that no refine_size reduces: DINO refiners have no limit of their own


class Served:
    """A loaded segmenter, used with the settings of each request.

    Words of callers are kept in memory, not in the cache on disk, which would grow with what strangers think of;
    what is there is used.

    Args:
        loaded: the segmenter.
        limits: of a request.
        batch: pictures that go through the model together at most; None takes the segmenter's own number.
    """

    def __init__(self, loaded: Segmenter, limits: Limits, *, batch: int | None = None) -> None:
        self.texts = LRUTextCache(_KEPT_TEXTS, fallback=loaded.cache)
        self.limits = limits
        self.version = version("cliper")
        """Of this package."""
        patches = loaded.settings.refine_max_patches or _REFINE_PATCHES
        public = loaded.with_settings(loaded.settings.replace(refine_max_patches=patches))
        public.checkpoint = replace(loaded.checkpoint, name=public_name(loaded.checkpoint.name))
        public.cache = self.texts
        self._segmenter = public.with_settings(public.settings)  # once more: messages have the public name
        self._loaded = loaded
        self._segmenter.batch_size = loaded.batch_size if batch is None else batch
        self._unrefined = self._segmenter.with_refiner(None)

    @property
    def batch(self) -> int:
        """Pictures that go through the model together at most."""
        return self._segmenter.batch_size

    @property
    def name(self) -> str:
        """Of the checkpoint; of a local folder it is the last part, as callers are told it."""
        return self._segmenter.checkpoint.name

    @property
    def refiner(self) -> str | None:
        """Its name, if there is one."""
        refiner = self._segmenter.refiner
        return None if refiner is None else public_name(str(refiner.name))

    @property
    def settings(self) -> Settings:
        """What is used where a request says nothing else."""
        return self._segmenter.settings

    def try_out(self) -> None:
        """Segment a grey picture: what is wrong with the weights is found before the first request.

        The built-in background words are read on the way; they stay in the cache on disk, for the next start.

        Raises:
            CliperError: the model does not work here.
        """
        from PIL import Image

        self._loaded(Image.new("RGB", (64, 64), "grey"), ["thing"])

    def variant(self, settings: Settings, *, refined: bool) -> Segmenter:
        """The model with other settings; nothing is loaded.

        Raises:
            SettingsError: settings that it cannot meet, or ``attention="proxy"`` where that is not what is served.
        """
        if settings.attention == "proxy" and self.settings.attention != "proxy":
            raise SettingsError("attention: 'proxy' needs a DINO, and none is loaded for it here; choose another")
        return (self._segmenter if refined else self._unrefined).with_settings(settings)

    def check_work(self, size: tuple[int, int], settings: Settings, *, classes: int, refined: bool) -> None:
        """Refuse what would keep the model busy for long: attention grows with the square of the patches, and giving
        pixels their classes with both.

        Args:
            size: width and height of the picture in pixels.
            settings: that are asked for.
            classes: how many.
            refined: whether with the refiner.

        Raises:
            Refusal: 422, too many patches, too many classes for so large a picture, or a large ``refine_size`` or
                ``refine_max_patches``.
            ShapeError: windows that would leave parts of the picture unseen.
        """
        patch, most = self._segmenter.encoder.patch_size, self.limits.patches
        height, width = resized_shape(*size, settings.size, patch)
        patches = height * width // patch**2
        if settings.window and patches <= most:
            windows = window_grid(height, width, settings.window)
            patches += sum((w.bottom - w.top) * (w.right - w.left) for w in windows) // patch**2
        if patches > most:
            raise Refusal(
                422,
                f"expected a picture of at most {most} patches, got {size[0]}x{size[1]} pixels, which at size "
                f"{settings.size} and window {settings.window} make {patches}; lower size or cut the picture",
            )
        megapixels = size[0] * size[1] / 1e6
        if megapixels * classes > self.limits.labelling:
            raise Refusal(
                422,
                f"expected megapixels times classes to be at most {self.limits.labelling:g}, got {megapixels:.4g} "
                f"times {classes}; make the picture smaller or ask for fewer classes",
            )
        if refined and settings.refine_size != self.settings.refine_size:
            side = _longest(settings.refine_size)
            allowed = max(_REFINE_SIDE, _longest(self.settings.refine_size))
            if side > allowed:
                raise Refusal(422, f"refine_size: expected at most {allowed}, got {side}; lower it")
        asked, most = settings.refine_max_patches or 0, self.settings.refine_max_patches or 0
        if refined and asked > most:
            raise Refusal(422, f"refine_max_patches: expected at most {most}, got {asked}; lower it")

    def describe(self) -> dict[str, Any]:
        """As in ``GET /v1/models``."""
        encoder, checkpoint = self._segmenter.encoder, self._segmenter.checkpoint
        return {
            "name": self.name,
            "source": checkpoint.source,
            "revision": checkpoint.revision,
            "refiner": self.refiner,
            "device": str(encoder.device),
            "dtype": str(encoder.dtype).removeprefix("torch."),
            "batch": self.batch,
            "settings": {**self.settings.to_dict(), "proxy_model": public_name(self.settings.proxy_model)},
            "limits": asdict(self.limits),
        }


def _longest(size: int | tuple[int, int] | None) -> int:
    return 0 if size is None else size if isinstance(size, int) else max(size)
