"""The served model: requests are checked against its limits, and made ready for it."""

from __future__ import annotations

import copy
import hashlib
import io
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

from fastapi import HTTPException
from PIL import Image

from cliper.cache import LRUTextCache
from cliper.decode_pool import DecodePool
from cliper.encoded_image import EncodedImage
from cliper.errors import ClassListError, ImageError, InputError, SettingsError
from cliper.formats.label_studio import display_name
from cliper.images import load_stream, resized_shape
from cliper.ops.windows import window_grid
from cliper.prompts import ClassPrompt, background_classes, background_keyword, load_templates, parse_classes
from cliper.result import Segmentation
from cliper.segmenter import Segmenter
from cliper.server.schemas import SegmentRequest
from cliper.settings import Settings
from cliper.vocabulary import TaughtWords

__all__ = ["CODEC_THREADS", "Limits", "PreparedRequest", "ServedModel"]

CODEC_THREADS = 2
"""Threads that decode images and encode responses; as many processes decode."""

_CACHED_BYTES = 256 * 2**20  # of encoded images
_CACHED_TEXTS = 20_000  # embeddings in memory: 40 MB at a width of 512
_MAX_PATCHES = 4096  # of an image that no refine_size reduces: DINO refiners have no limit of their own
_MAX_CHARACTERS, _MAX_PROMPT = 100_000, 500


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of the server; a request beyond them is refused, never truncated."""

    queue: int = 32  # concurrent requests: being read, waiting or computed; further ones get 429
    megabytes: float = 16.0  # of a request's body, 10^6 bytes
    megapixels: float = 16.0  # of an image, 10^6 pixels
    classes: int = 256  # in a request; as many background names
    pixel_classes: float = 1000.0  # megapixels of an image times number of classes: the cost of label assignment
    patches: int = 4096  # of an image as the model sees it, those of its sliding windows included
    texts: int = 8192  # prompts times templates in a request, background names included
    tasks: int = 100  # images in one request of Label Studio or of an export
    seconds: float = 60.0  # from a request's headers to its response


@dataclass(frozen=True, eq=False)
class PreparedRequest:
    """Input of the model: a decoded image and the digest of its file, classes, background names or "auto", the prompts
    of both, and the segmenter with the settings of the request."""

    image: Image.Image
    digest: bytes
    classes: tuple[ClassPrompt, ...]
    background: str | tuple[ClassPrompt, ...]
    prompts: tuple[str, ...]
    segmenter: Segmenter

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for requests that can share a batch."""
        models = (self.segmenter.settings, self.segmenter.refiner is None)
        return (self.image.size, self.classes, self.background, *models)


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
        threads: that the model uses.
    """

    def __init__(
        self,
        loaded: Segmenter,
        limits: Limits,
        *,
        batch: int | None = None,
        decoders: DecodePool | None = None,
        cached_bytes: int = _CACHED_BYTES,
        threads: int = 1,
    ) -> None:
        self.limits, self._decoders, self._threads = limits, decoders, threads
        self.texts = LRUTextCache(_CACHED_TEXTS, fallback=loaded.cache)
        self.settings = loaded.settings.replace(refine_max_patches=loaded.settings.refine_max_patches or _MAX_PATCHES)
        self.name = display_name(loaded.checkpoint.name)  # of a local folder the last part
        self.refiner = None if loaded.refiner is None else display_name(str(loaded.refiner.name))
        self.version = version("cliper")
        self.model_version = f"{self.name}{f' + {self.refiner}' if self.refiner else ''}, cliper {self.version}"
        self.batch = loaded.batch_size if batch is None else batch
        self.encoded = _EncodedImages(cached_bytes)
        self._segmenter = copy.copy(loaded)
        self._segmenter.checkpoint = replace(loaded.checkpoint, name=self.name)
        self._segmenter.cache, self._segmenter.batch_size = self.texts, self.batch
        self._unrefined = self._segmenter.with_refiner(None)
        self.taught = TaughtWords(self._segmenter.checkpoint, loaded.encoder)

    def prepare(self, request: SegmentRequest) -> PreparedRequest:
        """Check a request, then decode its image. Blocks: call it in a thread.

        Raises:
            HTTPException: 404 another model.
            InputError: an image, class or setting that cannot be used, or one beyond the limits.
            ResourceError: memory ran out while the image was decoded.
        """
        if request.model is not None and request.model.casefold() != self.name.casefold():
            raise HTTPException(404, f"model: expected {self.name}, which is served here, got another; leave it out")
        refiner = None if request.refiner is None else request.refiner.casefold()
        if refiner not in (None, "none", str(self.refiner).casefold()):
            raise InputError(f"refiner: expected none{f' or {self.refiner}' if self.refiner else ''}, got another")
        settings = self.settings.replace(**request.settings.model_dump(exclude_none=True))
        classes = self._parse_names(request.classes, "class")
        given = [request.background] if isinstance(request.background, str) else request.background or ["none"]
        background = background_keyword(given, "background") or tuple(self._parse_names(given, "background name"))
        named = (*classes, *background_classes(background, classes, lexicon=settings.background_count > 0))
        prompts = tuple(dict.fromkeys(prompt for item in named for prompt in item.prompts))
        texts = len(prompts) * len(load_templates(settings.templates))
        if max(map(len, prompts)) > _MAX_PROMPT:
            raise ClassListError(f"expected texts of at most {_MAX_PROMPT} characters, got a longer one; shorten it")
        if texts > self.limits.texts:
            raise ClassListError(f"expected at most {self.limits.texts} texts (prompts times templates), got {texts}")
        if not request.image:
            raise ImageError("image: expected an image, got 0 bytes; send its file")
        digest = hashlib.sha256(request.image).digest()
        image = self.encoded.image(digest) or self.decode(request.image)
        self._check_patches(image.size, settings)
        self.check_labels(image.size, len(classes))
        segmenter = (self._unrefined if refiner == "none" else self._segmenter).with_settings(settings)
        return PreparedRequest(image, digest, tuple(classes), background, prompts, segmenter)

    def decode(self, data: bytes) -> Image.Image:
        """An upright RGB image from an untrusted file, decoded in a limited process if there is one.

        Raises:
            ImageError: not an image, damaged, or too large.
            ResourceError: memory ran out.
        """
        pixels = int(self.limits.megapixels * 1e6)
        if self._decoders is None:
            return load_stream(io.BytesIO(data), "image", max_pixels=pixels)
        return Image.fromarray(self._decoders.decode(data, "image", max_pixels=pixels))

    def segment(self, requests: Sequence[PreparedRequest]) -> list[Segmentation]:
        """Results of requests with equal keys. Raises CliperError, as the segmenter does."""
        import torch

        torch.set_num_threads(self._threads)
        first = requests[0]
        images: list[Any] = [one.image for one in requests]
        if len(requests) == 1:  # images of a batch are encoded together, and not cached
            images = [self.encoded.encode(first.digest, first.image, first.segmenter)]
        return first.segmenter(images, first.classes, first.background)

    def check_labels(self, size: tuple[int, int], classes: int) -> None:
        """Refuse label assignment of too many pixels, or of too many pixels times classes.

        Raises:
            ImageError: too many.
        """
        megapixels, limits = size[0] * size[1] / 1e6, self.limits
        if megapixels > limits.megapixels or megapixels * classes > limits.pixel_classes:
            raise ImageError(
                f"expected at most {limits.megapixels:g} megapixels, and {limits.pixel_classes:g} megapixels times "
                f"classes, got {megapixels:.4g} times {classes}; reduce the image or use fewer classes"
            )

    def _check_patches(self, size: tuple[int, int], settings: Settings) -> None:
        """Refuse images that would occupy the model for long: attention grows with the square of the patches."""
        patch, limit, crop, pixels = self._segmenter.encoder.patch_size, self.limits.patches, settings.window, 0
        for side in (sizes := [settings.size, *settings.extra_sizes]):
            height, width = resized_shape(*size, side, patch)
            pixels += height * width
            if crop and pixels // patch**2 <= limit:  # all windows have one size
                pixels += len(window_grid(height, width, crop)) * min(crop, height) * min(crop, width)
        patches = (1 + settings.flip) * pixels // patch**2
        if patches > limit:
            raise ImageError(
                f"expected an image of at most {limit} patches, got {size[0]}x{size[1]} pixels, which at sizes "
                f"{sizes}, flip {settings.flip}, window {crop} make {patches}; lower size or cut the image"
            )

    def _parse_names(self, names: str | list[str], what: str) -> list[ClassPrompt]:
        texts, limit = [names] if isinstance(names, str) else names, self.limits.classes
        # Counted before they are parsed, because parsing creates an object for each.
        if sum(map(len, texts)) <= _MAX_CHARACTERS and len(parsed := parse_classes(texts, what=what)) <= limit:
            return parsed
        most = f"{limit} {what} entries of {_MAX_CHARACTERS} characters in all"
        raise ClassListError(f"expected at most {most}, got more; split the request")

    def describe(self) -> dict[str, Any]:
        """As in ``GET /v1/models``."""
        encoder, checkpoint, own = self._segmenter.encoder, self._segmenter.checkpoint, self.settings
        return {
            "name": self.name,
            "source": checkpoint.source,
            "revision": checkpoint.revision,
            "refiner": self.refiner,
            "device": str(encoder.device),
            "dtype": str(encoder.dtype).removeprefix("torch."),
            "batch": self.batch,
            "settings": {**own.to_dict(), **{n: display_name(getattr(own, n)) for n in ("proxy_model", "refine_vae")}},
            "limits": asdict(self.limits),
        }
