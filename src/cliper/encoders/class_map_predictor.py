"""Pixels and texts to class maps before refinement: what settings mean to an encoder and to the formulas.

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
    """A model whose patch affinity takes the place of the last layer's attention, such as a DINO."""

    def affinity(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """[B, 3, H, W] in [0, 1] and a grid (h, w) -> [B, h * w, h * w] float32, rows sum to 1."""
        ...


class ClassMapPredictor:
    """An encoder and the settings that it is used with.

    Args:
        encoder: the image tower is what is used of it.
        settings: all but those of refinement and labels count.
        name: of the checkpoint, for messages.
        proxy: the model for ``attention="proxy"``; not used otherwise.

    Raises:
        SettingsError: settings that the encoder cannot meet, or ``attention="proxy"`` without a model.
        CheckpointError: an encoder of a single layer.
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
                raise SettingsError("attention: 'proxy' attends by the patches of a DINO; expected one, got none")
            self._attention = partial(_proxy_affinity, proxy, encoder)

    def __call__(self, pixels: Tensor, texts: Tensor, num_classes: int) -> Tensor:
        """Class maps of pictures of one shape.

        Args:
            pixels: [B, 3, H, W], normalised.
            texts: [T, D] from :func:`cliper.ops.build_text_classifier`.
            num_classes: how many of the texts are classes.

        Returns:
            [B, C, h, w] float32.

        Raises:
            ShapeError: shapes that do not fit together.
            CheckpointError: weights, or a number format, that give no finite numbers.
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
        return maps.clone()  # out of inference mode, so that the caller may do with it what one does with tensors

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
    """The affinity for pixels that were normalised for the encoder."""
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
