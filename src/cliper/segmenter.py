"""Words and a picture in, a label map out: the public API."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
import torch
from torch import Tensor

from cliper.checkpoints import ResolvedCheckpoint, check_folder, recommended_settings, resolve
from cliper.coarse import CoarseMapper
from cliper.devices import memory_errors, pick_device, pick_dtype
from cliper.encoders.base import Encoder
from cliper.encoders.clip import load_clip
from cliper.errors import ShapeError
from cliper.images import ImageSource, load_image, preprocess, to_tensor
from cliper.ops.class_maps import build_text_classifier
from cliper.ops.labels import assign_labels, class_confidence
from cliper.prompts import ClassPrompt, encode_classes, parse_classes, scene_background
from cliper.refiners import Refiner, check_proxy, check_refiner, load_refiner
from cliper.refiners.dino import DinoRefiner
from cliper.result import Segmentation
from cliper.settings import Settings, check_seed, load_settings
from cliper.text_cache import TextCache, TextStore

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Segmenter"]

Classes = str | Sequence[str | ClassPrompt]

# Pictures of one shape go through the networks together on a GPU: so many, but no more than whose attention maps
# (float32, about 16 heads) fit into this many bytes. On a CPU a batch gains nothing and only takes memory.
_BATCH, _BATCH_BYTES = 8, 2**31


class Segmenter:
    """A CLIP checkpoint, a refiner or none, and settings; made by :meth:`from_pretrained`.

    Args:
        encoder: the image and text towers.
        checkpoint: where they came from.
        settings: how to use them.
        refiner: sharpens class maps, or None.
        seed: of the refiner's noise, -2^63 to 2^64 - 1.
        cache: of text embeddings, or None.
        dtype: of refiners, and of the DINO for ``attention="proxy"``, where this object loads them; None is float32 on
            a CPU and float16 elsewhere.

    Raises:
        SettingsError: settings that the encoder cannot meet, or a seed out of range.
        CheckpointError: the DINO for ``attention="proxy"`` is missing, broken, or cannot be fetched.
    """

    def __init__(
        self,
        encoder: Encoder,
        checkpoint: ResolvedCheckpoint,
        settings: Settings,
        *,
        refiner: Refiner | None = None,
        seed: int = 0,
        cache: TextStore | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.encoder = encoder
        self.checkpoint = checkpoint
        self.refiner = refiner
        self.seed = check_seed(seed)
        self.batch_size = 1 if encoder.device.type == "cpu" else _BATCH
        """At most so many pictures of one size go through the networks together; may be set."""
        self.cache = cache
        """Of text embeddings."""
        self._dtype = dtype
        # Those in use by name, shared with the segmenters that are made of this one.
        self._dinos: weakref.WeakValueDictionary[str, DinoRefiner] = weakref.WeakValueDictionary()
        if isinstance(refiner, DinoRefiner):
            self._dinos[refiner.name] = refiner
        self._texts: tuple[object, Tensor] | None = None
        self._coarse = self._mapper(settings)

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
        """Load a checkpoint, fetching it first if it is not there.

        Args:
            model: an alias (``"mini"``, ``"ViT-B/16"``, ``"ViT-L/14"``, ``"ViT-H/14"``), a hub name, or a
                local folder in ``transformers`` format.
            refiner: None, or the name of a refiner.
            settings: a preset's name, a YAML file, or :class:`Settings`; None takes what is recommended for
                the checkpoint. A file changes what it names of the recommended ones.
            device: such as ``"cpu"`` or ``"cuda:0"``; None takes a CUDA device if there is one.
            dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``, for CLIP and the refiner. None is float32
                for CLIP, what numbers are reported in; for the refiner float32 on a CPU and float16 elsewhere.
            seed: of the refiner's noise; the same picture and seed give the same result.

        Raises:
            CheckpointError: weights that are missing, broken, of another kind, or cannot be fetched.
            SettingsError: no such preset, device or dtype, settings the checkpoint cannot meet, or a seed out of range.
            ResourceError: memory ran out.

        Example:
            >>> Segmenter.from_pretrained().checkpoint.name
            'mini'
        """
        place, number, seed = pick_device(device), pick_dtype(dtype), check_seed(seed)
        if refiner is not None:
            check_refiner(str(refiner))  # before anything large is fetched
        checkpoint = resolve(model, "clip")
        check_folder(checkpoint.folder, "clip")
        base = recommended_settings(checkpoint)
        chosen = base if settings is None else load_settings(settings, base=base)
        check_proxy(chosen)
        with memory_errors():
            encoder = load_clip(checkpoint.folder, device=place, dtype=number)
        asked = None if dtype is None else number
        return cls(encoder, checkpoint, chosen, seed=seed, cache=TextCache(), dtype=asked).with_refiner(refiner)

    @property
    def settings(self) -> Settings:
        """The settings in use; :meth:`with_settings` gives a segmenter with others."""
        return self._coarse.settings

    def with_settings(self, settings: Settings) -> Segmenter:
        """The same models with other settings; nothing is loaded again.

        For ``attention="proxy"`` the settings' DINO is loaded where it is not in use already.

        Raises:
            SettingsError: settings that the encoder cannot meet.
            CheckpointError: the DINO for ``attention="proxy"`` is missing, broken, or cannot be fetched.
            ResourceError: memory ran out.
        """
        other = copy.copy(self)
        other._coarse = self._mapper(settings)
        return other

    def with_refiner(self, refiner: str | Path | None) -> Segmenter:
        """The same CLIP with another refiner, which is loaded, or with none.

        Its numbers are those that :meth:`from_pretrained` was asked for; if it was asked for none, float32 on a CPU
        and float16 elsewhere.

        Raises:
            RefinerError: there is no such refiner.
            CheckpointError: weights that are missing, broken, of another kind, or cannot be fetched.
            ResourceError: memory ran out.
        """
        other = copy.copy(self)
        other.refiner = None
        if refiner is not None:
            other.refiner = self._load_refiner(str(refiner).strip())
        return other

    @overload
    def __call__(self, image: ImageSource, classes: Classes, background: Classes | None = ...) -> Segmentation: ...
    @overload
    def __call__(
        self, image: list[ImageSource], classes: Classes, background: Classes | None = ...
    ) -> list[Segmentation]: ...
    def __call__(
        self,
        image: ImageSource | list[ImageSource],
        classes: Classes,
        background: Classes | None = "auto",
    ) -> Segmentation | list[Segmentation]:
        """Segment a picture, or a list of pictures.

        For a single class the mean of the classes, a text of its own in the method, is left out where there are
        background names: it would be that class once more, and halve its probability. :meth:`class_maps` never
        leaves it out.

        Args:
            image: a path, a PIL image or an HWC uint8 array; a list of them gives a list.
            classes: names, or ``"dog; grass"``; see :func:`cliper.prompts.parse_classes`.
            background: names of what is not asked for and may be in the picture; ``"auto"`` takes common
                scene words less the classes; None or an empty list takes none.

        Raises:
            ImageError: a picture that cannot be used.
            ClassListError: a class list that cannot be used.
            ResourceError: memory ran out.

        Example:
            >>> result = Segmenter.from_pretrained()(np.zeros((48, 64, 3), np.uint8), ["dog"])
            >>> result.labels.shape
            (48, 64)
        """
        named = parse_classes(classes)
        texts = self._build_text_classifier(named, background)
        loaded = map(load_image, image if isinstance(image, list) else [image])
        results = self._segment_all(((one, self.preprocess(one)) for one in loaded), named, texts)
        return results if isinstance(image, list) else results[0]

    @memory_errors()
    def preprocess(self, image: Image.Image, column: tuple[int, int] | None = None) -> Tensor:
        """An image as this segmenter's encoder takes it: resized and normalised by the encoder's and its own settings.

        Args:
            image: as :func:`cliper.images.load_image` gives it.
            column: None, or (i, n) for the i-th of n columns of the resized image; see :func:`.preprocess`.

        Returns:
            [3, H, W] float32 on the CPU, sides multiples of the patch size.

        Raises:
            ImageError: too many patches.
            ResourceError: memory ran out.
        """
        encoder = self.encoder
        return preprocess(
            image,
            size=self.settings.size,
            patch=encoder.patch_size,
            mean=encoder.pixel_mean,
            std=encoder.pixel_std,
            column=column,
        )

    def segment_preprocessed(
        self,
        images: Sequence[Image.Image],
        pixels: Sequence[Tensor],
        classes: Classes,
        background: Classes | None = "auto",
    ) -> list[Segmentation]:
        """As calling the segmenter with a list, but with the encoder's input given.

        For parts of larger images: the whole is resized before it is cut, and the part at its original size is what
        the refiner sees and labels are given for.

        Args:
            images: what is labelled, each as :func:`cliper.images.load_image` gives it.
            pixels: for each image [3, H, W] from :meth:`preprocess`.
            classes: as for :meth:`__call__`.
            background: as for :meth:`__call__`.

        Raises:
            ShapeError: not as many images as pixels, or sides of ``pixels`` that are no multiples of the patch size.
            ClassListError: a class list that cannot be used.
            ResourceError: memory ran out.
        """
        if len(images) != len(pixels):
            raise ShapeError(f"expected as many images as pixels, got {len(images)} and {len(pixels)}")
        named = parse_classes(classes)
        return self._segment_all(
            zip(images, pixels, strict=True), named, self._build_text_classifier(named, background)
        )

    def encode_text(self, classes: Classes) -> Tensor:
        """Embeddings of classes, by the settings' templates; kept on disk.

        Args:
            classes: as for :meth:`__call__`.

        Returns:
            [C, D] float32 of length 1, on the segmenter's device.

        Raises:
            ClassListError: a list that cannot be used, or a class longer than the text tower can read.
        """
        with memory_errors():
            return encode_classes(self.encoder, parse_classes(classes), self.settings.templates, self.cache)

    def class_maps(self, pixels: Tensor, foreground: Tensor, background: Tensor | None = None) -> Tensor:
        """Class maps before refinement, from pixels and text embeddings.

        Source: arXiv 2411.13836; ``docs/method.md``, section 2.

        Args:
            pixels: [3, H, W] or [B, 3, H, W], normalised as CLIP wants them, sides multiples of the patch size.
            foreground: [C, D] text embeddings of the classes.
            background: [B', D] of background names, or None.

        Returns:
            [C, h, w] or [B, C, h, w] float32, h = H / patch size.

        Raises:
            ShapeError: shapes that do not fit together.
            CheckpointError: weights, or a number format, that give no finite numbers.
            ResourceError: memory ran out.
        """
        if pixels.dim() not in (3, 4):
            raise ShapeError(f"pixels: expected [3, H, W] or [B, 3, H, W], got {list(pixels.shape)}")
        batch = pixels if pixels.dim() == 4 else pixels[None]
        maps = self._coarse(batch, build_text_classifier(foreground, background), len(foreground))
        return maps if pixels.dim() == 4 else maps[0]

    def refine(self, picture: Tensor, maps: Tensor) -> Tensor:
        """Sharpen class maps with the refiner; without one they come back as they are.

        Source: arXiv 2411.13836; ``docs/method.md``, section 3.

        Args:
            picture: [3, H, W] in [0, 1], of any size.
            maps: [C, h, w].

        Returns:
            [C, S, S'] float32.

        Raises:
            RefinerError: the refiner has no such layer, or gave no numbers.
            ResourceError: memory ran out.
        """
        return self._refine([picture], [maps])[0]

    def _segment_all(
        self, inputs: Iterable[tuple[Image.Image, Tensor]], classes: Sequence[ClassPrompt], texts: Tensor
    ) -> list[Segmentation]:
        """Images with the encoder's input of each, in their order."""
        results: list[Segmentation] = []
        for batch in self._batches(inputs):
            images, pixels = zip(*batch, strict=True)
            results.extend(self._segment(images, torch.stack(pixels), classes, texts))
        return results

    def _mapper(self, settings: Settings) -> CoarseMapper:
        check_proxy(settings)
        loaded = self._load_refiner(settings.proxy_model.strip()) if settings.attention == "proxy" else None
        proxy = loaded if isinstance(loaded, DinoRefiner) else None
        return CoarseMapper(self.encoder, settings, self.checkpoint.name, proxy)

    def _load_refiner(self, name: str) -> Refiner | None:
        """Load a refiner. A DINO in use, as refiner or for ``attention="proxy"``, is not loaded twice."""
        known = self._dinos.get(name)
        if known is not None:
            return known
        encoder = self.encoder
        loaded = load_refiner(name, device=encoder.device, dtype=self._dtype, encoder=encoder)
        if isinstance(loaded, DinoRefiner):
            self._dinos[name] = loaded
        return loaded

    @memory_errors()
    def _segment(
        self, images: Sequence[Image.Image], pixels: Tensor, classes: Sequence[ClassPrompt], texts: Tensor
    ) -> list[Segmentation]:
        """Images of one size, and the encoder's input [B, 3, H, W]."""
        maps = list(self._coarse(pixels, texts, len(classes)))
        refined = maps
        if self.refiner is not None:
            refined = self._refine([to_tensor(image) for image in images], maps)
        return [self._label(image, classes, m, r) for image, m, r in zip(images, maps, refined, strict=True)]

    def _label(
        self, picture: Image.Image, classes: Sequence[ClassPrompt], maps: Tensor, refined: Tensor
    ) -> Segmentation:
        settings = self.settings
        labels = assign_labels(
            refined,
            maps,
            (picture.height, picture.width),
            background_threshold=settings.background_threshold,
            score_threshold=settings.score_threshold,
            normalize=settings.normalize,
        )
        return Segmentation(
            image=picture,
            classes=tuple(item.name for item in classes),
            labels=labels.cpu().numpy().astype(np.int32),
            confidence=class_confidence(refined, maps).cpu().numpy(),
            maps=maps.cpu().numpy(),
            refined=refined.cpu().numpy(),
            settings=settings,
            model=self.checkpoint.name,
            refiner=None if self.refiner is None else str(self.refiner.name),
        )

    def _refine(self, pictures: Sequence[Tensor], maps: Sequence[Tensor]) -> list[Tensor]:
        if self.refiner is None:
            refined = [m.float() for m in maps]
        else:
            with memory_errors():
                refined = self.refiner.refine(pictures, maps, self.settings, seed=self.seed)
        # Tensors of inference mode could not be changed in place, nor take part in a backward pass.
        return [r.clone() if r.is_inference() else r for r in refined]

    def _batches(self, inputs: Iterable[tuple[Image.Image, Tensor]]) -> Iterator[list[tuple[Image.Image, Tensor]]]:
        """Neighbours of one size, as many as go through the networks together."""
        batch: list[tuple[Image.Image, Tensor]] = []
        for image, pixels in inputs:
            if batch:
                first, its_pixels = batch[0]
                alike = image.size == first.size and pixels.shape == its_pixels.shape
                if not alike or len(batch) >= self._max_batch(pixels):
                    yield batch
                    batch = []
            batch.append((image, pixels))
        if batch:
            yield batch

    def _max_batch(self, pixels: Tensor) -> int:
        if self.batch_size == 1:
            return 1
        tokens = 1 + pixels[0].numel() // self.encoder.patch_size**2
        return max(1, min(self.batch_size, _BATCH_BYTES // (16 * tokens**2 * 4)))

    def _build_text_classifier(self, classes: Sequence[ClassPrompt], background: Classes | None) -> Tensor:
        """The texts of the last call are kept: whoever has many pictures asks for the same words each time."""
        others = background if background is None or isinstance(background, str) else tuple(background)
        key = (tuple(classes), others, self.settings.templates)
        kept = self._texts
        if kept is not None and kept[0] == key:
            return kept[1]
        foreground = self.encode_text(classes)
        names = self._encode_background(background, classes)
        # With one class the mean of the classes would be that class once more, and compete with it.
        texts = build_text_classifier(foreground, names, with_mean=len(classes) > 1 or names is None)
        self._texts = (key, texts)
        return texts

    def _encode_background(self, background: Classes | None, classes: Sequence[ClassPrompt]) -> Tensor | None:
        if isinstance(background, str) and background.strip() == "auto":
            names = scene_background(classes)
        elif not background:
            return None
        else:
            names = parse_classes(background, what="background name")
        return self.encode_text(names) if names else None
