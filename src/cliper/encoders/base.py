"""What the rest of the package knows of an encoder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, device, dtype

from cliper.ops.recipes import Recipe

__all__ = ["Encoder", "ImageFeatures", "ProxyAffinity"]

ProxyAffinity = Callable[[Tensor, tuple[int, int]], Tensor]
"""Attention of the last layer that another model computes: normalised pixels [B, 3, H, W] and a grid (h, w) of patches
-> affinity of the patches [B, h * w, h * w] float32, whose rows sum to 1."""


@dataclass(frozen=True)
class ImageFeatures:
    """What class maps are computed from, for one picture; it depends on no text.

    Args:
        embeddings: [L', h * w, D] float32, patches' embeddings by layer, of length 1.
        affinity: [h * w, h * w] float32, the last layer's attention, mean over heads, class token dropped.
        grid: (h, w).
        window_embeddings: the same as ``embeddings`` from sliding windows, or None.
    """

    embeddings: Tensor
    affinity: Tensor
    grid: tuple[int, int]
    window_embeddings: Tensor | None = None


class Encoder(Protocol):
    """An image tower and a text tower with one joint space."""

    patch_size: int
    num_layers: int
    embedding_width: int
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    device: device
    dtype: dtype

    def encode_images(
        self, pixels: Tensor, *, recipe: Recipe, attention: str | ProxyAffinity, layers: Sequence[int], window: int = 0
    ) -> list[ImageFeatures]:
        """[B, 3, H, W] normalised pixels -> features of each picture, for the wanted layers."""
        ...

    def patch_features(self, pixels: Tensor, layer: int) -> Tensor:
        """[B, 3, H, W] normalised pixels -> the patches after ``layer`` layers, [B, h * w, width]."""
        ...

    def encode_texts(self, prompts: Sequence[str]) -> Tensor:
        """Texts -> [n, D] float32 of length 1."""
        ...

    def text_fingerprint(self) -> str:
        """Identifies what :meth:`encode_texts` computes: weights, tokenizer and dtype."""
        ...
