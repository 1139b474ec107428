"""The protocol of encoders, and what they compute."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, device, dtype

from cliper.ops.recipes import Recipe

__all__ = ["Encoder", "ImageFeatures", "ProxyAffinity"]

ProxyAffinity = Callable[[Tensor, tuple[int, int]], Tensor]
"""Attention of the last layer from another model: normalised pixels [B, 3, H, W] and a grid (h, w) of patches ->
affinity of the patches [B, h * w, h * w] float32, rows sum to 1."""


@dataclass(frozen=True)
class ImageFeatures:
    """Features of one image, independent of any text; class maps are computed from them.

    Args:
        embeddings: [L', h * w, D] float32, unit embeddings of the patches after each of L' layers.
        affinity: [h * w, h * w] float32, the last layer's attention, mean over heads, without the class token.
        grid: (h, w) patches.
        window_embeddings: [L', h * w, D] float32, the embeddings from sliding windows, or None.
        image_embedding: [D] float32 of length 1, of the whole image (CLIP's class token), or None.
    """

    embeddings: Tensor
    affinity: Tensor
    grid: tuple[int, int]
    window_embeddings: Tensor | None = None
    image_embedding: Tensor | None = None


class Encoder(Protocol):
    """An image tower and a text tower with a joint embedding space."""

    patch_size: int
    num_layers: int
    embedding_width: int
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    device: device
    dtype: dtype

    def encode_images(
        self,
        pixels: Tensor,
        *,
        recipe: Recipe,
        attention: str | ProxyAffinity,
        layers: Sequence[int],
        window: int = 0,
        window_context: bool = False,
        whole_image: bool = False,
    ) -> list[ImageFeatures]:
        """[B, 3, H, W] normalised pixels -> features of each image, with embeddings after the given layers."""
        ...

    def patch_features(self, pixels: Tensor, layer: int) -> Tensor:
        """[B, 3, H, W] normalised pixels -> hidden states of the patches after ``layer`` layers, [B, h * w, width]."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """n texts -> unit embeddings [n, D] float32."""
        ...

    def text_fingerprint(self) -> str:
        """Hash of what embeddings of texts depend on: weights, tokenizer and dtype."""
        ...
