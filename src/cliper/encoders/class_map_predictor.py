"""Pixels and text embeddings to class maps before refinement: an encoder, its settings and the formulas.

Source: arXiv 2411.13836; ``docs/method.md``, section 2.
"""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from cliper.devices import convert_out_of_memory
from cliper.encoders.base import Encoder, ImageFeatures, ProxyAffinity
from cliper.errors import CheckpointError, SettingsError, ShapeError
from cliper.ops.class_choice import choose_classes, select_texts
from cliper.ops.class_maps import class_maps, class_probabilities
from cliper.ops.recipes import RECIPES
from cliper.ops.views import average_views
from cliper.settings import Settings

__all__ = ["ClassMapPredictor"]

_MAX_ATTENTION_BYTES = 2**31  # of the attention maps of a batch (float32, about 16 heads)


class ClassMapPredictor:
    """Predicts class maps with an encoder.

    Args:
        encoder: only its image tower is used.
        settings: those of the encoder; those of refinement and labels are ignored.
        name: of the checkpoint, for messages.
        proxy: affinity of another model, which takes images in [0, 1], for ``attention="proxy"``; else ignored.

    Raises:
        SettingsError: the settings do not fit the encoder, or ``attention="proxy"`` has no model.
        CheckpointError: the encoder has a single layer.
    """

    def __init__(self, encoder: Encoder, settings: Settings, name: str, proxy: ProxyAffinity | None = None) -> None:
        _check(encoder, settings, name)
        self.settings = settings
        self._encoder = encoder
        self._name = name
        self._recipe = RECIPES[settings.recipe]
        self._attention: str | ProxyAffinity = settings.attention
        if settings.attention == "proxy":
            if proxy is None:
                raise SettingsError("attention: expected a DINO for 'proxy', got none")
            self._attention = partial(_proxy_affinity, proxy, encoder)

    def max_batch_size(self, shape: Sequence[int]) -> int:
        """Number of images with pixels [3, H, W] of this shape whose attention maps fit into memory together."""
        tokens = 1 + math.prod(shape[1:]) // self._encoder.patch_size**2
        return max(1, _MAX_ATTENTION_BYTES // (16 * tokens**2 * 4))

    def encode(self, pixels: Tensor) -> list[ImageFeatures]:
        """Features of images of one size, independent of any text.

        Args:
            pixels: [B, 3, H, W], normalised for the encoder, H and W multiples of the patch size.

        Raises:
            ShapeError: sides that are no multiples of the patch size, or pixels that are not finite.
            ResourceError: memory ran out.
        """
        settings, depth = self.settings, self._encoder.num_layers
        with convert_out_of_memory(), torch.inference_mode():
            features = self._encoder.encode_images(
                pixels,
                recipe=self._recipe,
                attention=self._attention,
                layers=range(depth) if settings.fuse_features else [settings.select_layer % depth],
                window=settings.window,
                window_context=settings.window_context,
                whole_image=settings.chooses_classes,
            )
        if not pixels.isfinite().all():
            raise ShapeError("pixels: expected finite numbers, got NaN or infinity")
        return features

    def encode_views(self, pixels: Sequence[Tensor]) -> list[tuple[ImageFeatures, ...]]:
        """Features of the views of each image: every size, and with ``flip`` the mirror image after each.

        Args:
            pixels: for each size, [B, 3, H, W] as for :meth:`encode`.

        Raises:
            ShapeError, ResourceError: as :meth:`encode`.
        """
        sizes = [view for one in pixels for view in ((one, one.flip(-1)) if self.settings.flip else (one,))]
        batches = [view.split(self.max_batch_size(view.shape[1:])) for view in sizes]
        by_view = [[features for batch in view for features in self.encode(batch)] for view in batches]
        return list(zip(*by_view, strict=True))

    def predict_views(
        self, views: Sequence[ImageFeatures], texts: Tensor, num_classes: int, groups: Tensor | None = None
    ) -> Tensor:
        """Class maps of one image: the mean over its views, 0 for classes that are not chosen.

        Args:
            views: from :meth:`encode_views`.
            texts: as for :meth:`predict`.
            num_classes: as for :meth:`predict`.
            groups: as for :meth:`predict`.

        Returns:
            [C, h, w] float32 at the grid of the first view.

        Raises:
            ShapeError, CheckpointError, ResourceError: as :meth:`predict`.
        """
        chosen = self._choose(views, texts, num_classes, groups)
        if chosen is not None:
            texts, groups = select_texts(texts, chosen, groups)
        flips = (False, True) if self.settings.flip else (False,)
        count = num_classes if chosen is None else int(chosen.sum())
        maps = average_views(
            [self.predict(view, texts, count, groups) for view in views], flips * (len(views) // len(flips))
        )
        if chosen is None:
            return maps
        filled = maps.new_zeros(num_classes, *maps.shape[1:])
        filled[chosen.to(maps.device)] = maps
        return filled

    def _choose(
        self, views: Sequence[ImageFeatures], texts: Tensor, num_classes: int, groups: Tensor | None
    ) -> Tensor | None:
        """[C] bool, the classes that fit the whole image, on the texts' device; None if all are wanted."""
        settings = self.settings
        if not settings.chooses_classes:
            return None
        embeddings = torch.stack([view.image_embedding for view in views if view.image_embedding is not None])
        device, scale = embeddings.device, settings.logit_scale
        groups = None if groups is None else groups.to(device)
        scores = class_probabilities(embeddings, texts.to(device), scale, num_classes, groups)
        chosen = choose_classes(scores.mean(1), top=settings.class_top, min_score=settings.class_min_score)
        return chosen.to(texts.device)

    def predict(self, features: ImageFeatures, texts: Tensor, num_classes: int, groups: Tensor | None = None) -> Tensor:
        """Class maps of one view of an image, from its features.

        Args:
            features: from :meth:`encode`.
            texts: [T, D] from :func:`cliper.ops.build_text_classifier`, or [R, D] from
                :func:`cliper.ops.expand_synonyms`.
            num_classes: C; the first C texts are the classes.
            groups: [R] from :func:`cliper.ops.expand_synonyms`, or None.

        Returns:
            [C, h, w] float32, h = H / patch size.

        Raises:
            ShapeError: texts of another width.
            CheckpointError: the maps are not finite, because of the weights or the dtype.
            ResourceError: memory ran out.
        """
        settings, encoder = self.settings, self._encoder
        if texts.shape[1] != encoder.embedding_width:
            raise ShapeError(
                f"foreground: expected embeddings of width {encoder.embedding_width}, got {texts.shape[1]}"
            )
        with convert_out_of_memory(), torch.inference_mode():
            maps = class_maps(
                features.embeddings,
                features.affinity,
                texts.to(encoder.device),
                num_classes,
                logit_scale=settings.logit_scale,
                map_threshold=settings.map_threshold,
                selected=settings.select_layer if settings.fuse_features else 0,
                recipe=self._recipe,
                fuse_features=settings.fuse_features,
                window_embeddings=features.window_embeddings,
                groups=None if groups is None else groups.to(encoder.device),
            )
        if not maps.isfinite().all():
            raise CheckpointError(
                f"expected class maps of finite numbers from {self._name} in {encoder.dtype}, got NaN or infinity; "
                f"check its weights with `cliper models verify`, or compute in float32"
            )
        return maps.reshape(num_classes, *features.grid).clone()  # an ordinary tensor, not one of inference mode


def _proxy_affinity(proxy: ProxyAffinity, encoder: Encoder, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    """The proxy's affinity, from pixels normalised for the encoder."""
    mean, std = (torch.tensor(v, device=pixels.device)[:, None, None] for v in (encoder.pixel_mean, encoder.pixel_std))
    return proxy(pixels.float() * std + mean, grid)


def _check(encoder: Encoder, settings: Settings, name: str) -> None:
    depth, patch = encoder.num_layers, encoder.patch_size
    if not -depth <= settings.select_layer < depth:
        raise SettingsError(
            f"select_layer: expected a layer from {-depth} to {depth - 1} for {name}, got {settings.select_layer}"
        )
    if depth < 2:
        raise CheckpointError(
            f"{name}: expected a model of at least 2 layers, whose early ones are fused; it has {depth}"
        )
    if settings.window % patch:
        raise SettingsError(f"window: expected a multiple of the patch size {patch} of {name}, got {settings.window}")
