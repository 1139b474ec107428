"""Pixels and text embeddings to class maps before refinement: an encoder, its settings and the formulas.

Source: arXiv 2411.13836; ``docs/method.md``, section 2.
"""

from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from cliper.devices import convert_out_of_memory
from cliper.encoders.base import Encoder, ImageFeatures, ProxyAffinity
from cliper.errors import CheckpointError, SettingsError, ShapeError
from cliper.ops.class_maps import class_maps
from cliper.ops.recipes import RECIPES
from cliper.settings import Settings

__all__ = ["ClassMapPredictor", "ProxyModel"]


class ProxyModel(Protocol):
    """A model, such as a DINO, whose patch affinity replaces the last layer's attention."""

    def affinity(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """[B, 3, H, W] in [0, 1] and a grid (h, w) -> [B, h * w, h * w] float32, rows sum to 1."""
        ...


class ClassMapPredictor:
    """Predicts class maps with an encoder.

    Args:
        encoder: only its image tower is used.
        settings: those of the encoder; those of refinement and labels are ignored.
        name: of the checkpoint, for messages.
        proxy: the model for ``attention="proxy"``, else ignored.

    Raises:
        SettingsError: the settings do not fit the encoder, or ``attention="proxy"`` has no model.
        CheckpointError: the encoder has a single layer.
    """

    def __init__(self, encoder: Encoder, settings: Settings, name: str, proxy: ProxyModel | None = None) -> None:
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

    def __call__(self, pixels: Tensor, texts: Tensor, num_classes: int) -> Tensor:
        """Class maps of images of one size.

        Args:
            pixels: [B, 3, H, W], normalised for the encoder, H and W multiples of the patch size.
            texts: [T, D] from :func:`cliper.ops.build_text_classifier`.
            num_classes: C; the first C texts are the classes.

        Returns:
            [B, C, h, w] float32, h = H / patch size.

        Raises:
            ShapeError: the shapes do not fit together, or pixels are not finite.
            CheckpointError: the maps are not finite, because of the weights or the dtype.
            ResourceError: memory ran out.
        """
        encoder = self._encoder
        if texts.shape[1] != encoder.embedding_width:
            raise ShapeError(
                f"foreground: expected embeddings of width {encoder.embedding_width}, got {texts.shape[1]}"
            )
        with convert_out_of_memory(), torch.inference_mode():
            texts = texts.to(encoder.device)
            maps = torch.stack([self._maps(f, texts, num_classes) for f in self._features(pixels)])
        if not maps.isfinite().all():
            if not pixels.isfinite().all():
                raise ShapeError("pixels: expected finite numbers, got NaN or infinity")
            raise CheckpointError(
                f"expected class maps of finite numbers from {self._name} in {encoder.dtype}, got NaN or infinity; "
                f"check its weights with `cliper models verify`, or compute in float32"
            )
        return maps.clone()  # an ordinary tensor, not one of inference mode

    def _features(self, pixels: Tensor) -> list[ImageFeatures]:
        settings, depth = self.settings, self._encoder.num_layers
        return self._encoder.encode_images(
            pixels,
            recipe=self._recipe,
            attention=self._attention,
            layers=range(depth) if settings.fuse_features else [settings.select_layer % depth],
            window=settings.window,
        )

    def _maps(self, features: ImageFeatures, texts: Tensor, num_classes: int) -> Tensor:
        settings = self.settings
        maps = class_maps(
            features.embeddings,
            features.affinity,
            texts,
            num_classes,
            logit_scale=settings.logit_scale,
            map_threshold=settings.map_threshold,
            selected=settings.select_layer if settings.fuse_features else 0,
            recipe=self._recipe,
            fuse_features=settings.fuse_features,
            window_embeddings=features.window_embeddings,
        )
        return maps.reshape(num_classes, *features.grid)


def _proxy_affinity(proxy: ProxyModel, encoder: Encoder, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    """The proxy's affinity, from pixels normalised for the encoder."""
    mean, std = (torch.tensor(v, device=pixels.device)[:, None, None] for v in (encoder.pixel_mean, encoder.pixel_std))
    return proxy.affinity(pixels.float() * std + mean, grid)


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
