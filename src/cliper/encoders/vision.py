"""CLIP's image tower, layer by layer.

Source: arXiv 2411.13836; ``docs/method.md``, section 2. Only the parameters of the ``transformers`` model are used; its
forward method is neither called nor patched.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.encoders.base import ImageFeatures, ProxyAffinity
from cliper.errors import ShapeError
from cliper.kernels import optimize_for_cpu
from cliper.kernels.linear import linear
from cliper.kernels.switch import use_cpu_kernels
from cliper.kernels.threads import map_rows, threaded_map
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

T = TypeVar("T")

_WINDOW_BATCH_SIZE = 8


class VisionTower:
    """The image tower of a ``transformers`` CLIP.

    Args:
        vision_model: its ``vision_model``.
        projection: its ``visual_projection``.
    """

    def __init__(self, vision_model: Any, projection: Any) -> None:
        optimize_for_cpu(vision_model)
        config = vision_model.config
        self._model = vision_model
        self._layers = list(vision_model.encoder.layers)
        self._projection = projection
        self._heads: int = config.num_attention_heads
        self._quick_gelu = config.hidden_act == "quick_gelu"
        self.patch_size: int = config.patch_size
        self.num_layers: int = config.num_hidden_layers
        self.embedding_width: int = projection.out_features
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
            x, _ = self._run_layer(block, x, None)
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
            x, normed = self._run_layer(block, x, summed)
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

        def embed(index: int) -> Tensor:
            layer = layers[index]
            y = _apply(last.self_attn.out_proj, outputs[layer])
            if recipe.subtract_input:
                y = y - features[layer]
            y = self._model.post_layernorm(y[:, 1:])
            return F.normalize(_apply(self._projection, y).float(), dim=-1)

        return torch.stack(list(_each(embed, len(layers), x)), 1), affinity

    def _fuse(
        self, last: Any, features: dict[int, Tensor], total: Tensor, recipe: Recipe
    ) -> tuple[dict[int, Tensor], Tensor]:
        order = sorted(features)
        batch, heads, tokens, _ = total.shape
        dtype = features[order[0]].dtype
        values = total.new_empty((batch, len(order), heads, tokens, last.self_attn.head_dim), dtype=dtype)

        def project(index: int) -> None:
            normed = last.layer_norm1(features[order[index]])
            values[:, index] = split_heads(_apply(last.self_attn.v_proj, normed), heads)

        for _ in _each(project, len(order), total):
            pass
        fused = [fuse_values(t, v, order, self.num_layers, recipe) for t, v in zip(total, values, strict=True)]
        merged = [merge_heads(mixed) for mixed, _ in fused]  # each [L', N, H * d]
        outputs = {
            layer: torch.stack([m[index] for m in merged]) if batch > 1 else merged[0][index : index + 1]
            for index, layer in enumerate(order)
        }
        return outputs, torch.stack([mean for _, mean in fused])[:, 1:, 1:]

    def _ablate(self, last: Any, features: dict[int, Tensor], attention: str) -> tuple[dict[int, Tensor], Tensor]:
        outputs: dict[int, Tensor] = {}
        for index, feature in sorted(features.items()):
            query, key, value = self._project(last, last.layer_norm1(feature))
            mixed, affinity = ablated_attention(attention, query, key, value)
            outputs[index] = merge_heads(mixed)
        return outputs, affinity[:, 1:, 1:]  # of the last layer, which comes last

    def _attend_by(self, last: Any, features: dict[int, Tensor], affinity: Tensor) -> dict[int, Tensor]:
        def attend_layer(feature: Tensor) -> Tensor:
            value = split_heads(_apply(last.self_attn.v_proj, last.layer_norm1(feature)), self._heads)
            return merge_heads(attend_by_affinity(affinity, value))

        return {index: attend_layer(feature) for index, feature in features.items()}

    def _embed_patches(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 1 + P, width], the input of the first layer."""
        embeddings = self._model.embeddings
        patches = embeddings.patch_embedding(pixels.to(embeddings.patch_embedding.weight.dtype))
        grid = (patches.shape[-2], patches.shape[-1])
        cls = embeddings.class_embedding.expand(len(pixels), 1, -1)
        x = torch.cat([cls, patches.flatten(2).transpose(1, 2)], 1) + self._position_embedding(grid)
        hidden: Tensor = self._model.pre_layrnorm(x)
        return hidden

    def _position_embedding(self, grid: tuple[int, int]) -> Tensor:
        known = self._position_embeddings.get(grid)
        if known is None:
            table = self._model.embeddings.position_embedding.weight
            known = interpolate_position_embedding(table.float(), grid).to(table.dtype)
            # A new dictionary, because other threads may be reading the old one.
            recent = list(self._position_embeddings.items())[-15:]
            self._position_embeddings = {**dict(recent), grid: known}
        return known

    def _run_layer(self, block: Any, x: Tensor, summed: AttentionAccumulator | None) -> tuple[Tensor, Tensor]:
        """Run one layer -> its output and its normalised input, both [B, N, width]."""

        def before(rows: Tensor) -> tuple[Tensor, ...]:
            own = block.self_attn
            normed = block.layer_norm1(rows)
            return normed, *(_apply(projection, normed) for projection in (own.q_proj, own.k_proj, own.v_proj))

        def after(rows: Tensor, mixed: Tensor) -> tuple[Tensor, ...]:
            x = _apply(block.self_attn.out_proj, mixed).add_(rows)
            hidden = _apply(block.mlp.fc1, block.layer_norm2(x))
            # In place where possible: these are the largest tensors of a layer.
            hidden = (1.702 * hidden).sigmoid_().mul_(hidden) if self._quick_gelu else block.mlp.activation_fn(hidden)
            return (_apply(block.mlp.fc2, hidden).add_(x),)

        normed, *projected = map_rows(before, x)
        query, key, value = (split_heads(p, self._heads) for p in projected)
        mixed = summed.attend(query, key, value) if summed else attend(query, key, value)
        return map_rows(after, x, merge_heads(mixed))[0], normed

    def _project(self, block: Any, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, each [B, H, N, d]."""
        attention = block.self_attn
        query, key, value = (
            split_heads(_apply(projection, normed), self._heads)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        return query, key, value

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


def _apply(layer: Any, x: Tensor) -> Tensor:
    return linear(x, layer.weight, layer.bias)


def _each(work: Callable[[int], T], count: int, x: Tensor) -> Iterator[T]:
    """``work`` of 0 to ``count - 1``; in threads where CPU kernels are used for ``x``."""
    return threaded_map(work, count) if use_cpu_kernels(x) else map(work, range(count))
