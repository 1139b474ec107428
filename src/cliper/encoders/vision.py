"""CLIP's image tower, layer by layer.

Source: arXiv 2411.13836; ``docs/method.md``, section 2.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.checkpoints.clip import VisionConfig
from cliper.encoders.base import ImageFeatures, ProxyAffinity
from cliper.encoders.layers import TransformerLayer, layer_norm, linear
from cliper.errors import ShapeError
from cliper.ops.attention import (
    AttentionAccumulator,
    ablated_attention,
    attend,
    attend_by_affinity,
    merge_heads,
    split_heads,
)
from cliper.ops.fusion import fuse_values
from cliper.ops.position_embedding import interpolate_position_embedding
from cliper.ops.recipes import Recipe
from cliper.ops.windows import WindowMerger, window_grid

__all__ = ["VisionTower"]

_WINDOW_BATCH_SIZE = 8


class VisionTower:
    """The image tower of a CLIP.

    Args:
        config: its shape.
        weights: of the model, by name.
    """

    def __init__(self, config: VisionConfig, weights: Mapping[str, Tensor]) -> None:
        embeddings, encoder = "vision_model.embeddings", "vision_model.encoder.layers"
        self._patch_embedding = weights[f"{embeddings}.patch_embedding.weight"]
        self._class_embedding = weights[f"{embeddings}.class_embedding"]
        self._position_table = weights[f"{embeddings}.position_embedding.weight"]
        self._pre_norm = layer_norm(weights, "vision_model.pre_layrnorm", config.layer_norm_eps)
        self._layers = [TransformerLayer(config, weights, f"{encoder}.{i}") for i in range(config.num_hidden_layers)]
        self._last_value = linear(weights, f"{encoder}.{config.num_hidden_layers - 1}.self_attn.v_proj")
        self._post_norm = layer_norm(weights, "vision_model.post_layernorm", config.layer_norm_eps)
        self._projection = linear(weights, "visual_projection")
        self._heads = config.num_attention_heads
        self.patch_size = config.patch_size
        self.num_layers = config.num_hidden_layers
        self.embedding_width = len(weights["visual_projection.weight"])
        self._position_embeddings: dict[tuple[int, int], Tensor] = {}  # by grid

    @torch.inference_mode()
    def encode(
        self, pixels: Tensor, *, recipe: Recipe, attention: str | ProxyAffinity, layers: Sequence[int], window: int = 0
    ) -> list[ImageFeatures]:
        """Features of each image of a batch.

        Args:
            pixels: [B, 3, H, W] normalised pixels, H and W multiples of the patch size.
            recipe: the published version of the method.
            attention: the last layer's attention: ``"fused"``, one of the ablations, or a function that computes the
                affinity with another model, called for the batch and for each batch of windows.
            layers: the layers (from 0) after which patches are embedded.
            window: side of the sliding windows in pixels, a multiple of the patch size; 0 means no windows.

        Raises:
            ShapeError: ``pixels`` has another shape, or a side is not a multiple of the patch size.
        """
        self._check(pixels, window)
        height, width = pixels.shape[-2:]
        grid = (height // self.patch_size, width // self.patch_size)
        embeddings, affinity = self._embed(pixels, recipe, attention, layers)
        merged: list[Tensor] | list[None] = [None] * len(pixels)
        if window:
            merged = [self._encode_windows(p, window, recipe, attention, layers) for p in pixels]
        return [ImageFeatures(e, a, grid, m) for e, a, m in zip(embeddings, affinity, merged, strict=True)]

    @torch.inference_mode()
    def patch_features(self, pixels: Tensor, layer: int) -> Tensor:
        """Hidden states of the patches after ``layer`` layers.

        Args:
            pixels: [B, 3, H, W] as for :meth:`encode`.
            layer: from 0 (the input of the first layer) to the number of layers.

        Returns:
            [B, h * w, width] in the tower's dtype.
        """
        self._check(pixels, 0)
        x = self._embed_patches(pixels)
        for block in self._layers[:layer]:
            x, _ = block.run(x, attend)
        return x[:, 1:]

    def _check(self, pixels: Tensor, window: int) -> None:
        patch = self.patch_size
        if pixels.dim() != 4 or pixels.shape[1] != 3:
            raise ShapeError(f"pixels: expected [B, 3, H, W], got {list(pixels.shape)}")
        if any(side == 0 or side % patch for side in pixels.shape[-2:]):
            raise ShapeError(
                f"pixels: expected sides that are multiples of the patch size {patch}, "
                f"got {pixels.shape[-2]}x{pixels.shape[-1]}"
            )
        if window % patch:
            raise ShapeError(f"window: expected a multiple of the patch size {patch}, got {window}")

    def _embed(
        self, pixels: Tensor, recipe: Recipe, attention: str | ProxyAffinity, layers: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Pixels -> unit embeddings [B, L', P, D] and affinity [B, P, P], both float32."""
        fused = attention == "fused"
        summed = AttentionAccumulator() if fused else None
        wanted = set(layers)
        if isinstance(attention, str) and not fused:
            wanted.add(self.num_layers - 1)  # an ablation's affinity is computed from the last layer
        features: dict[int, Tensor] = {}
        x = self._embed_patches(pixels)
        *body, last = self._layers
        for index, block in enumerate(body):
            x, normed = block.run(x, summed.attend if summed else attend)
            if index in wanted:
                features[index] = normed
        if self.num_layers - 1 in wanted:
            features[self.num_layers - 1] = x
        if summed is not None:
            outputs, affinity = self._fuse(last, features, summed.total, recipe)
        elif isinstance(attention, str):
            outputs, affinity = self._ablate(last, features, attention)
        else:
            height, width = pixels.shape[-2:]
            affinity = attention(pixels, (height // self.patch_size, width // self.patch_size))
            outputs = self._attend_by(last, features, affinity)

        embeddings = x.new_empty((len(x), len(layers), x.shape[1] - 1, self.embedding_width), dtype=torch.float32)

        for index, layer in enumerate(layers):
            y = last.out(outputs[layer])
            if recipe.subtract_input:
                y = y - features[layer]
            y = self._projection(self._post_norm(y[:, 1:])).float()
            F.normalize(y, dim=-1, out=embeddings[:, index])
        return embeddings, affinity

    def _fuse(
        self, last: TransformerLayer, features: dict[int, Tensor], total: Tensor, recipe: Recipe
    ) -> tuple[dict[int, Tensor], Tensor]:
        order = sorted(features)
        values = [split_heads(self._last_value(last.norm1(features[layer])), self._heads) for layer in order]
        by_image = zip(total, zip(*values, strict=True), strict=True)  # values: [H, N, d] of each layer
        fused = [fuse_values(one, value, order, self.num_layers, recipe) for one, value in by_image]
        mixed = torch.stack([m for m, _ in fused], 1) if len(fused) > 1 else fused[0][0][:, None]
        outputs = dict(zip(order, map(merge_heads, mixed), strict=True))  # each [B, N, width]
        return outputs, torch.stack([mean for _, mean in fused])[:, 1:, 1:]

    def _ablate(
        self, last: TransformerLayer, features: dict[int, Tensor], attention: str
    ) -> tuple[dict[int, Tensor], Tensor]:
        outputs: dict[int, Tensor] = {}
        for index, feature in sorted(features.items()):
            mixed, affinity = ablated_attention(attention, *last.split(last.qkv(last.norm1(feature))))
            outputs[index] = merge_heads(mixed)
        return outputs, affinity[:, 1:, 1:]  # of the last layer, which comes last

    def _attend_by(self, last: TransformerLayer, features: dict[int, Tensor], affinity: Tensor) -> dict[int, Tensor]:
        def attend_layer(feature: Tensor) -> Tensor:
            value = split_heads(self._last_value(last.norm1(feature)), self._heads)
            return merge_heads(attend_by_affinity(affinity, value))

        return {index: attend_layer(feature) for index, feature in features.items()}

    def _embed_patches(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 1 + P, width], the input of the first layer."""
        kernel = self._patch_embedding
        patches = F.conv2d(pixels.to(kernel.dtype), kernel, stride=self.patch_size)
        grid = (patches.shape[-2], patches.shape[-1])
        cls = self._class_embedding.expand(len(pixels), 1, -1)
        return self._pre_norm(torch.cat([cls, patches.flatten(2).transpose(1, 2)], 1) + self._position_embedding(grid))

    def _position_embedding(self, grid: tuple[int, int]) -> Tensor:
        known = self._position_embeddings.get(grid)
        if known is None:
            table = self._position_table
            known = interpolate_position_embedding(table.float(), grid).to(table.dtype)
            # A new dictionary, because other threads may be reading the old one.
            recent = list(self._position_embeddings.items())[-15:]
            self._position_embeddings = {**dict(recent), grid: known}
        return known

    def _encode_windows(
        self, pixels: Tensor, crop: int, recipe: Recipe, attention: str | ProxyAffinity, layers: Sequence[int]
    ) -> Tensor:
        """[3, H, W] -> [L', P, D], embeddings from sliding windows."""
        height, width = pixels.shape[-2:]
        grid = (height // self.patch_size, width // self.patch_size)
        merger = WindowMerger(len(layers), grid, self.embedding_width, self.patch_size, pixels.device)
        windows = window_grid(height, width, crop)
        for first in range(0, len(windows), _WINDOW_BATCH_SIZE):
            batch = windows[first : first + _WINDOW_BATCH_SIZE]
            crops = torch.stack([pixels[:, w.top : w.bottom, w.left : w.right] for w in batch])
            embeddings, affinity = self._embed(crops, recipe, attention, layers)
            for w, e, a in zip(batch, embeddings, affinity, strict=True):
                merger.add(w, e, a)
        return merger.merged()
