"""The public API: an image and class names in, a label map out."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, overload

import torch
from torch import Tensor

from cliper.cache import SQLiteTextCache, TextEmbeddingCache
from cliper.checkpoints import ResolvedCheckpoint, check_folder, recommended_settings, resolve, resolve_recipe
from cliper.devices import convert_out_of_memory, resolve_device, resolve_dtype
from cliper.encoded_image import EncodedImage, find_usable
from cliper.encoders.base import Encoder
from cliper.encoders.class_map_predictor import ClassMapPredictor
from cliper.encoders.clip import load_encoder
from cliper.errors import ShapeError
from cliper.images import ImageSource, load_image, preprocess, to_tensor
from cliper.ops.class_maps import build_text_classifier
from cliper.prompts import Classes, ClassPrompt, encode_classes, parse_classes
from cliper.refiners import Affinity, Refiner, RefinerLoader, check_proxy, check_refiner, smooth_maps
from cliper.refiners.dino import DinoRefiner
from cliper.result import Segmentation
from cliper.setting_checks import check_seed
from cliper.settings import Settings, load_settings
from cliper.text_classifier import TEXT_SETTINGS, TextClassifier, make_text_classifier

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Segmenter"]

Source = ImageSource | EncodedImage
S = TypeVar("S", bound=Source)

# Maximum number of images in a batch on a GPU. On a CPU a batch gains nothing and takes memory.
_BATCH_SIZE = 8


class Segmenter:
    """A CLIP checkpoint, a refiner or none, and settings; made by :meth:`from_pretrained`.

    Args:
        encoder: the image and text towers.
        checkpoint: the origin of the encoder.
        settings: of encoder, refiner and label assignment.
        refiner: sharpens class maps, or None.
        seed: of the refiner's noise, -2^63 to 2^64 - 1.
        cache: of text embeddings, or None.
        dtype: of refiners, and of the DINO for ``attention="proxy"``, that this object loads; None is float32 on a CPU
            and float16 elsewhere.

    Raises:
        SettingsError: the settings do not fit the encoder, or the seed is out of range.
        CheckpointError: the DINO for ``attention="proxy"`` is missing, damaged, or cannot be downloaded.
    """

    def __init__(
        self,
        encoder: Encoder,
        checkpoint: ResolvedCheckpoint,
        settings: Settings,
        *,
        refiner: Refiner | None = None,
        seed: int = 0,
        cache: TextEmbeddingCache | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.encoder = encoder
        self.checkpoint = checkpoint
        self.refiner = refiner
        self.seed = check_seed(seed)
        self.batch_size = 1 if encoder.device.type == "cpu" else _BATCH_SIZE
        """Maximum number of images of one size in a batch; may be set."""
        self.cache = cache
        self._refiners = RefinerLoader(encoder, dtype)  # copies of this segmenter share it
        self._texts: dict[object, TextClassifier] = {}  # of the last calls; copies of this segmenter share it
        self._settings = settings
        self._predictor = self._make_predictor(settings)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = "mini",
        refiner: str | Path | None = None,
        settings: str | Path | Settings | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        seed: int = 0,
    ) -> Segmenter:
        """Load a checkpoint, and download it first if it is not on this machine.

        Args:
            model: an alias (``"mini"``, ``"ViT-B/16"`` ...), a hub name, a folder or a file; see :func:`.resolve`.
            refiner: None, or the name of a refiner.
            settings: a preset's name, a YAML file, or :class:`Settings`; None takes the settings recommended for the
                checkpoint. A file changes the recommended settings that it names.
            device: such as ``"cpu"`` or ``"cuda:0"``; None takes a CUDA device if there is one.
            dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``, for CLIP and the refiner. None is float32 for CLIP,
                in which results are reported; for the refiner float32 on a CPU and float16 elsewhere.
            seed: of the refiner's noise; the same image and seed give the same result.

        Raises:
            CheckpointError: weights are missing, damaged, of another kind, or cannot be downloaded.
            SettingsError: no such preset, device or dtype, settings that do not fit the checkpoint, or a seed out of
                range.
            ResourceError: memory ran out.

        Example:
            >>> Segmenter.from_pretrained().checkpoint.name
            'mini'
        """
        target, clip_dtype, seed = resolve_device(device), resolve_dtype(dtype), check_seed(seed)
        if refiner is not None:
            check_refiner(str(refiner))  # before a download
        checkpoint = resolve(model, "clip")
        check_folder(checkpoint.folder, "clip")
        base = recommended_settings(checkpoint)
        chosen = base if settings is None else load_settings(settings, base=base)
        check_proxy(chosen)
        with convert_out_of_memory():
            encoder = load_encoder(checkpoint, device=target, dtype=clip_dtype)
        refiner_dtype = None if dtype is None else clip_dtype
        segmenter = cls(encoder, checkpoint, chosen, seed=seed, cache=SQLiteTextCache(), dtype=refiner_dtype)
        return segmenter.with_refiner(refiner)

    @property
    def settings(self) -> Settings:
        """The settings in use; :meth:`with_settings` gives a segmenter with others."""
        return self._settings

    def with_settings(self, settings: Settings) -> Segmenter:
        """A segmenter with the same models and other settings.

        Models are not loaded again. For ``attention="proxy"`` the settings' DINO is loaded unless it is in use. Raises
        SettingsError if settings and encoder do not fit, CheckpointError and ResourceError as :meth:`from_pretrained`.
        """
        other = copy.copy(self)
        other._settings, other._predictor = settings, self._make_predictor(settings)
        return other

    def with_refiner(self, refiner: str | Path | None) -> Segmenter:
        """A segmenter with the same CLIP and another refiner, or none.

        Its dtype is the one given to :meth:`from_pretrained`, else float32 on a CPU and float16 elsewhere. Raises
        RefinerError if there is no such refiner, CheckpointError and ResourceError as :meth:`from_pretrained`.
        """
        other = copy.copy(self)
        other.refiner = None if refiner is None else self._refiners.load(str(refiner))
        return other

    @overload
    def __call__(self, image: Source, classes: Classes, background: Classes | None = ...) -> Segmentation: ...
    @overload
    def __call__(self, image: list[S], classes: Classes, background: Classes | None = ...) -> list[Segmentation]: ...
    def __call__(
        self, image: Source | list[S], classes: Classes, background: Classes | None = "auto"
    ) -> Segmentation | list[Segmentation]:
        """Segment an image, or a list of images.

        The method adds the mean of the classes as a text. With one class and background names it is left out: it
        would equal the class and halve its probability. :meth:`class_maps` never leaves it out.

        Args:
            image: as for :func:`cliper.images.load_image`, or an encoded image; a list of them gives a list.
            classes: names, or ``"dog; grass"``; see :func:`cliper.prompts.parse_classes`.
            background: names of other things that may be in the image; ``"auto"`` takes built-in names that mean none
                of the classes; ``"none"``, None or an empty list takes none.

        Raises:
            ImageError: an image cannot be read, or its size is out of bounds.
            ClassListError: the class list is empty, names a class twice, or cannot be read.
            ResourceError: memory ran out.

        Example:
            >>> import cliper
            >>> result = Segmenter.from_pretrained()(cliper.example_photo(), ["horse", "car"])
            >>> max(result.areas, key=result.areas.get)
            'horse'
        """
        named = parse_classes(classes)
        self.text_classifier(named, background)  # raises before the networks run
        encoded = self._encode_all(image if isinstance(image, list) else [image])
        results = [self.assign_labels(one.image, named, *self.predict_maps(one, named, background)) for one in encoded]
        return results if isinstance(image, list) else results[0]

    def encode_image(self, image: ImageSource) -> EncodedImage:
        """Run the networks on an image once; the segmenter then segments it by any words.

        Args:
            image: as for :func:`cliper.images.load_image`.

        Returns:
            CLIP's features and the refiner's affinity, on the segmenter's device. Their size is ``nbytes``.

        Raises:
            ImageError: the image cannot be read, or its size is out of bounds.
            ResourceError: memory ran out.

        Example:
            >>> import cliper
            >>> segmenter = Segmenter.from_pretrained()
            >>> encoded = segmenter.encode_image(cliper.example_photo())
            >>> segmenter(encoded, "horse").classes, segmenter(encoded, "car").classes
            (('horse',), ('car',))
        """
        return next(self._encode_all([image]))

    @convert_out_of_memory()
    def preprocess(
        self, image: Image.Image, column: tuple[int, int] | None = None, *, size: int | None = None
    ) -> Tensor:
        """The encoder's input for an image: resized and normalised.

        Args:
            image: as :func:`cliper.images.load_image` gives it.
            column: None, or (i, n) for the i-th of n columns of the resized image; see :func:`.preprocess`.
            size: short side of the resized image; None takes the settings' ``size``.

        Returns:
            [3, H, W] float32 on the CPU, H and W multiples of the patch size.

        Raises:
            ImageError: the image has too many patches.
            ResourceError: memory ran out.
        """
        encoder, side = self.encoder, size or self.settings.size
        mean, std = encoder.pixel_mean, encoder.pixel_std
        return preprocess(image, size=side, patch=encoder.patch_size, mean=mean, std=std, column=column)

    def encode_images(
        self, images: Sequence[Image.Image], pixels: Sequence[Tensor], known: Sequence[Sequence[EncodedImage]] = ()
    ) -> list[EncodedImage]:
        """Encode images, given for each [3, H, W] from :meth:`preprocess`, which may be a part of a larger image.

        What would be equal in ``known``, the same images encoded in other ways, is taken from there. Raises ShapeError
        if numbers differ or sides are no multiples of the patch size, ResourceError if memory ran out.
        """
        if len(images) != len(pixels):
            raise ShapeError(f"expected as many images as pixels, got {len(images)} and {len(pixels)}")
        by_image = zip(*known, strict=True) if known else [()] * len(images)
        return list(self._encode(zip(images, pixels, by_image, strict=True)))

    def segment_deferred(
        self, images: Sequence[EncodedImage], classes: Classes, background: Classes | None = "auto"
    ) -> list[Callable[[], Segmentation]]:
        """As :meth:`__call__`; labels are assigned when the functions are called, in any thread."""
        named = parse_classes(classes)
        self.text_classifier(named, background)  # raises without images, too
        maps = [self.predict_maps(one, named, background) for one in images]
        return [functools.partial(self.assign_labels, i.image, named, *m) for i, m in zip(images, maps, strict=True)]

    @convert_out_of_memory()
    def predict_maps(
        self, image: EncodedImage, classes: Classes, background: Classes | None = "auto"
    ) -> tuple[Tensor, Tensor]:
        """Class maps of an encoded image, [C, h, w] before and [C, S, S'] after refinement, float32, on the device.

        Arguments and errors are those of :meth:`__call__`.
        """
        named = parse_classes(classes)
        texts = self.text_classifier(named, background)
        maps = self._predictor.predict_views(image.views, texts.rows, len(named), texts.groups)
        return maps, image.refine(maps, self.refiner, self.settings)

    @convert_out_of_memory()
    def assign_labels(self, image: Image.Image, classes: Classes, maps: Tensor, refined: Tensor) -> Segmentation:
        """The result for class maps, such as those of :meth:`predict_maps`; may be called in any thread."""
        return Segmentation.from_maps(
            image,
            [item.name for item in parse_classes(classes)],
            maps,
            refined,
            settings=self.settings,
            model=self.checkpoint.name,
            refiner=None if self.refiner is None else str(self.refiner.name),
        )

    def encode_text(self, classes: Classes) -> Tensor:
        """Embeddings of classes in the settings' templates, from the cache or added to it.

        Args:
            classes: as for :meth:`__call__`; of several prompts, the mean.

        Returns:
            [C, D] float32 of length 1, on the segmenter's device.

        Raises:
            ClassListError: as for :meth:`__call__`, or a class has more tokens than the text tower reads.
        """
        with convert_out_of_memory():
            return encode_classes(self.encoder, parse_classes(classes), self.settings.templates, self.cache)

    def text_classifier(self, classes: Sequence[ClassPrompt], background: Classes | None) -> TextClassifier:
        """The texts of a call, with its arguments and errors. Those of the last calls are cached, for many images."""
        is_list = isinstance(background, Iterable) and not isinstance(background, str)
        names = repr(list(background or ())) if is_list else background
        key = (tuple(classes), names, *(getattr(self.settings, name) for name in TEXT_SETTINGS))
        if (texts := self._texts.get(key)) is None:
            foreground = self.encode_text(classes)
            with convert_out_of_memory():
                texts = make_text_classifier(self.encoder, classes, foreground, background, self.settings, self.cache)
            for old in list(self._texts)[:-15]:
                self._texts.pop(old, None)
            self._texts[key] = texts
        return texts

    def class_maps(self, pixels: Tensor, foreground: Tensor, background: Tensor | None = None) -> Tensor:
        """Class maps before refinement of one view and of all classes, from pixels and text embeddings.

        Source: arXiv 2411.13836; ``docs/method.md``, section 2.

        Args:
            pixels: [3, H, W] or [B, 3, H, W], normalised for the encoder, sides multiples of the patch size.
            foreground: [C, D] text embeddings of the classes.
            background: [B', D] of background names, or None.

        Returns:
            [C, h, w] or [B, C, h, w] float32, h = H / patch size.

        Raises:
            ShapeError: the shapes do not fit together.
            CheckpointError: the maps are not finite, because of the weights or the dtype.
            ResourceError: memory ran out.
        """
        if pixels.dim() not in (3, 4):
            raise ShapeError(f"pixels: expected [3, H, W] or [B, 3, H, W], got {list(pixels.shape)}")
        batch = pixels if pixels.dim() == 4 else pixels[None]
        texts = build_text_classifier(foreground, background)
        maps = [self._predictor.predict(one, texts, len(foreground)) for one in self._predictor.encode(batch)]
        return torch.stack(maps) if pixels.dim() == 4 else maps[0]

    def refine(self, image: Tensor, maps: Tensor) -> Tensor:
        """Sharpen class maps with the refiner, if there is one, and along the image's edges if ``edge_weight`` is set.

        Source: arXiv 2411.13836; ``docs/method.md``, section 3.

        Args:
            image: [3, H, W] in [0, 1], of any size.
            maps: [C, h, w].

        Returns:
            [C, S, S'] float32.

        Raises:
            RefinerError: the refiner has no such layer, or its maps are not finite.
            ResourceError: memory ran out.
        """
        refined = maps.float()
        if self.refiner is not None:
            [refined] = self.refiner.refine([image], [maps], self.settings, seed=self.seed)
        refined = smooth_maps(refined, image, self.settings)
        return refined.clone() if refined.is_inference() else refined  # an ordinary tensor in any case

    def _encode_all(self, images: Sequence[Source]) -> Iterator[EncodedImage]:
        """Encode images that are not encoded yet, in order."""
        loaded = (load_image(image) for image in images if not isinstance(image, EncodedImage))
        encoded = self._encode((image, self.preprocess(image), ()) for image in loaded)
        for image in images:
            if isinstance(image, EncodedImage):
                image.check_usable(self.encoder, self.refiner, self.settings, self.seed)
            yield image if isinstance(image, EncodedImage) else next(encoded)

    def _encode(self, inputs: Iterable[tuple[Image.Image, Tensor, Sequence[EncodedImage]]]) -> Iterator[EncodedImage]:
        """Encode images, each with the encoder's input and known encodings, in order, in batches of one size."""
        for (_, shape), group in itertools.groupby(inputs, key=lambda item: (item[0].size, item[1].shape)):
            batch_size = min(self.batch_size, self._predictor.max_batch_size(shape))
            while batch := list(itertools.islice(group, batch_size)):
                images, pixels, known = zip(*batch, strict=True)
                yield from self._encode_batch(images, torch.stack(pixels), known)

    @convert_out_of_memory()
    def _encode_batch(
        self, images: Sequence[Image.Image], pixels: Tensor, known: Sequence[Sequence[EncodedImage]]
    ) -> list[EncodedImage]:
        """Encode images of one size; pixels [B, 3, H, W]."""
        refiner, settings, seed = self.refiner, self.settings, self.seed
        found = find_usable(known, lambda one: not one.encoder_changes(self.encoder, settings))
        extra = (torch.stack([self.preprocess(one, size=side) for one in images]) for side in settings.extra_sizes)
        views = [one.views for one in found] or self._predictor.encode_views([pixels, *extra])
        affinities: Sequence[Affinity | None] = [None] * len(images)
        if refiner is not None:
            found = find_usable(known, lambda one: not one.refiner_changes(refiner, settings, seed))
            affinities = [one.affinity for one in found] or refiner.encode(list(map(to_tensor, images)), settings, seed)
        return [
            EncodedImage(image, one, affinity, settings, self.encoder, refiner, seed)
            for image, one, affinity in zip(images, views, affinities, strict=True)
        ]

    def _make_predictor(self, settings: Settings) -> ClassMapPredictor:
        check_proxy(settings)
        loaded = self._refiners.load(settings.proxy_model) if settings.attention == "proxy" else None
        proxy = loaded.affinity if isinstance(loaded, DinoRefiner) else None
        settings = settings.replace(recipe=resolve_recipe(settings.recipe, self.checkpoint))
        return ClassMapPredictor(self.encoder, settings, self.checkpoint.name, proxy)
