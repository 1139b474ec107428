"""The served model, and limits on the cost of a request."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from cliper.cache import LRUTextCache
from cliper.checkpoints import find_entry
from cliper.decode_pool import DecodePool
from cliper.encoded_image import EncodedImage
from cliper.errors import ResourceError, SettingsError
from cliper.formats.label_studio import display_name
from cliper.images import load_stream, resized_shape
from cliper.ops.windows import window_grid
from cliper.segmenter import Segmenter
from cliper.server.errors import HTTPError
from cliper.server.limits import Limits
from cliper.settings import Settings

if TYPE_CHECKING:
    from cliper.result import Segmentation
    from cliper.server.request import SegmentRequest

__all__ = ["CODEC_THREADS", "ServedModel", "public_name"]

CODEC_THREADS = 2
"""Threads that decode images and encode responses; as many processes decode."""

_CACHED_BYTES = 256 * 2**20  # of encoded images
_CACHED_TEXTS = 20_000  # embeddings in memory: 40 MB at a width of 512
_REFINE_SIDE = 512
_REFINE_PATCHES = 4096  # of an image that no refine_size reduces: DINO refiners have no limit of their own
_MAX_TEMPLATES, _MAX_REFINE_LAYERS = 16, 4


def public_name(name: str) -> str:
    """A model's name without the folders of this machine; aliases and hub names are returned as they are.

    Example:
        >>> public_name("ViT-B/16"), public_name("/home/me/models/mine")
        ('ViT-B/16', 'mine')
    """
    if find_entry(name) is not None:
        return name
    path = Path(name).expanduser()
    return path.resolve().name if path.is_dir() else display_name(name)


class _EncodedImages:
    """LRU cache of encoded images by the digest of their file, bounded in bytes. Changed by one thread only."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._images: OrderedDict[bytes, EncodedImage] = OrderedDict()

    def image(self, digest: bytes) -> Image.Image | None:
        """The decoded image; from any thread."""
        found = self._images.get(digest)
        return None if found is None else found.image

    def encode(self, digest: bytes, image: Image.Image, segmenter: Segmenter) -> EncodedImage:
        """The encoded image, from the cache if it was encoded with the same models and settings."""
        found = self._images.pop(digest, None)
        try:
            if found is not None:
                found.check_usable(segmenter.encoder, segmenter.refiner, segmenter.settings, segmenter.seed)
        except SettingsError:
            found = None
        found = self._images[digest] = found or segmenter.encode_image(image)
        while sum(one.nbytes for one in self._images.values()) > self._max_bytes:
            self._images.popitem(last=False)
        return found


class ServedModel:
    """A loaded segmenter, used with the settings of each request.

    Text embeddings of requests are cached in memory, not on disk, where untrusted requests would fill it; the cache on
    disk is read.

    Args:
        loaded: the segmenter.
        limits: of a request.
        batch: maximum number of images in a batch; None takes the segmenter's own number.
        decoders: processes that decode images; None decodes in this process.
        cached_bytes: maximum size of the cache of encoded images.
    """

    def __init__(
        self,
        loaded: Segmenter,
        limits: Limits,
        *,
        batch: int | None = None,
        decoders: DecodePool | None = None,
        cached_bytes: int = _CACHED_BYTES,
    ) -> None:
        self.texts = LRUTextCache(_CACHED_TEXTS, fallback=loaded.cache)
        self.limits = limits
        patches = loaded.settings.refine_max_patches or _REFINE_PATCHES
        public = loaded.with_settings(loaded.settings.replace(refine_max_patches=patches))
        public.checkpoint = replace(loaded.checkpoint, name=public_name(loaded.checkpoint.name))
        public.cache = self.texts
        self._segmenter = public.with_settings(public.settings)  # once more: messages have the public name
        self._loaded = loaded
        self._segmenter.batch_size = loaded.batch_size if batch is None else batch
        refiner = loaded.refiner
        self.version = version("cliper")
        self.batch = self._segmenter.batch_size
        """Maximum number of images in a batch."""
        self.settings = self._segmenter.settings
        """Default settings of a request."""
        self.name = self._segmenter.checkpoint.name
        """Name of the checkpoint; of a local folder the last part."""
        self.refiner = None if refiner is None else public_name(str(refiner.name))
        self.model_version = f"{self.name}{f' + {self.refiner}' if self.refiner else ''}, cliper {self.version}"
        """What predictions are marked with."""
        self._unrefined = self._segmenter.with_refiner(None)
        self._decoders = decoders
        self.encoded = _EncodedImages(cached_bytes)
        """Images of the last requests."""

    def warm_up(self) -> None:
        """Segment a grey image, so that broken weights are found before the first request.

        The embeddings of the built-in background words are stored in the cache on disk, for the next start.

        Raises:
            CliperError: the model does not work here.
        """
        self._loaded(Image.new("RGB", (64, 64), "grey"), ["thing"])

    def with_settings(self, settings: Settings, *, refined: bool) -> Segmenter:
        """The model with other settings; nothing is loaded.

        Raises:
            SettingsError: settings that the model cannot meet or that cost too much, or ``attention="proxy"`` where
                no proxy is loaded.
        """
        if settings.attention == "proxy" and self.settings.attention != "proxy":
            raise SettingsError("attention: 'proxy' needs a DINO, and none is loaded here; choose another")
        if isinstance(settings.templates, tuple) and len(settings.templates) > _MAX_TEMPLATES:
            raise SettingsError(f"templates: expected at most {_MAX_TEMPLATES}, got {len(settings.templates)}")
        if len(settings.refine_layers or ()) > _MAX_REFINE_LAYERS:
            raise SettingsError(f"refine_layers: expected at most {_MAX_REFINE_LAYERS}; name fewer")
        return (self._segmenter if refined else self._unrefined).with_settings(settings)

    def decode(self, data: bytes, name: str) -> Image.Image:
        """An upright RGB image from an untrusted file, decoded in a limited process if there is one.

        Raises:
            ImageError: not an image, damaged, or too large.
            ResourceError: memory ran out, or the server is stopping.
        """
        if self._decoders is None:
            return load_stream(io.BytesIO(data), name, max_pixels=self.limits.pixels)
        try:
            return Image.fromarray(self._decoders.decode(data, name, max_pixels=self.limits.pixels))
        except RuntimeError:  # the pool was closed
            raise ResourceError("the server is stopping; ask again later") from None

    def segment(self, requests: Sequence[SegmentRequest]) -> list[Segmentation]:
        """Results of requests with equal keys.

        Raises:
            CliperError: whatever the segmenter raises.
        """
        first = requests[0]
        images: list[Any] = [one.image for one in requests]
        if len(requests) == 1:  # images of a batch are encoded together, and not cached
            images = [self.encoded.encode(first.digest, first.image, first.segmenter)]
        return first.segmenter(images, list(first.classes), list(first.background))

    def check_cost(self, size: tuple[int, int], settings: Settings, *, classes: int, refined: bool) -> None:
        """Refuse requests that would occupy the model for long: attention grows with the square of the patches, and
        label assignment with pixels times classes.

        Args:
            size: width and height of the image in pixels.
            settings: of the request.
            classes: number of classes.
            refined: whether the refiner is used.

        Raises:
            HTTPError: 422, too many patches, too many classes for the size of the image, or ``refine_size`` or
                ``refine_max_patches`` out of range.
            ShapeError: windows that do not cover the image.
        """
        patch, max_patches = self._segmenter.encoder.patch_size, self.limits.patches
        height, width = resized_shape(*size, settings.size, patch)
        patches = height * width // patch**2
        if settings.window and patches <= max_patches:
            windows = window_grid(height, width, settings.window)
            patches += sum((w.bottom - w.top) * (w.right - w.left) for w in windows) // patch**2
        if patches > max_patches:
            raise HTTPError(
                422,
                f"expected an image of at most {max_patches} patches, got {size[0]}x{size[1]} pixels, which at size "
                f"{settings.size} and window {settings.window} make {patches}; lower size or cut the image",
            )
        self.check_labels(size, classes)
        if not refined:
            return
        if settings.refine_size != self.settings.refine_size:
            allowed = max(_REFINE_SIDE, _longest(self.settings.refine_size))
            if _longest(settings.refine_size) > allowed:
                raise HTTPError(422, f"refine_size: expected at most {allowed}, got {settings.refine_size}; lower it")
        asked, allowed = settings.refine_max_patches or 0, self.settings.refine_max_patches or 0
        if asked > allowed:
            raise HTTPError(422, f"refine_max_patches: expected at most {allowed}, got {asked}; lower it")

    def check_labels(self, size: tuple[int, int], classes: int) -> None:
        """Refuse label assignment of too many pixels times classes, or of too many pixels.

        Raises:
            HTTPError: 422.
        """
        megapixels, allowed = size[0] * size[1] / 1e6, self.limits.pixel_classes
        if megapixels > self.limits.megapixels:
            raise HTTPError(422, f"expected at most {self.limits.megapixels:g} megapixels, got {megapixels:.4g}")
        if megapixels * classes > allowed:
            raise HTTPError(
                422,
                f"expected megapixels times classes to be at most {allowed:g}, got {megapixels:.4g} times {classes}; "
                f"reduce the image or use fewer classes",
            )

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
