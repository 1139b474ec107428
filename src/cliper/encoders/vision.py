"""CLIP's image tower, layer by layer.

Source: arXiv 2411.13836; ``docs/method.md``, section 2. Only the parameters of the ``transformers`` model are used; its
forward method is neither called nor patched.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.encoders.base import ImageFeatures, ProxyAffinity
from cliper.errors import ShapeError
from cliper.kernels.linear import packed_linear
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
    """The image tower of a ``transformers`` CLIP.

    Args:
        vision_model: its ``vision_model``.
        projection: its ``visual_projection``.
    """

    def __init__(self, vision_model: Any, projection: Any) -> None:
        config = vision_model.config
        self._embeddings = vision_model.embeddings
        self._pre_norm = vision_model.pre_layrnorm
        self._layers = [_Layer(block, config.hidden_act) for block in vision_model.encoder.layers]
        self._last_value = _pack(vision_model.encoder.layers[-1].self_attn.v_proj)
        self._post_norm = vision_model.post_layernorm
        self._projection = _pack(projection)
        self._heads: int = config.num_attention_heads
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

        embeddings = x.new_empty((len(x), len(layers), x.shape[1] - 1, self.embedding_width), dtype=torch.float32)

        for index, layer in enumerate(layers):
            y = last.out(outputs[layer])
            if recipe.subtract_input:
                y = y - features[layer]
            y = self._projection(self._post_norm(y[:, 1:])).float()
            F.normalize(y, dim=-1, out=embeddings[:, index])
        return embeddings, affinity

    def _fuse(
        self, last: "_Layer", features: dict[int, Tensor], total: Tensor, recipe: Recipe
    ) -> tuple[dict[int, Tensor], Tensor]:
        order = sorted(features)
        values = [split_heads(self._last_value(last.norm1(features[layer])), self._heads) for layer in order]
        by_image = zip(total, zip(*values, strict=True), strict=True)  # values: [H, N, d] of each layer
        fused = [fuse_values(one, value, order, self.num_layers, recipe) for one, value in by_image]
        mixed = torch.stack([m for m, _ in fused], 1) if len(fused) > 1 else fused[0][0][:, None]
        outputs = dict(zip(order, map(merge_heads, mixed), strict=True))  # each [B, N, width]
        return outputs, torch.stack([mean for _, mean in fused])[:, 1:, 1:]

    def _ablate(self, last: Any, features: dict[int, Tensor], attention: str) -> tuple[dict[int, Tensor], Tensor]:
        outputs: dict[int, Tensor] = {}
        for index, feature in sorted(features.items()):
            mixed, affinity = ablated_attention(attention, *self._split(last.qkv(last.norm1(feature))))
            outputs[index] = merge_heads(mixed)
        return outputs, affinity[:, 1:, 1:]  # of the last layer, which comes last

    def _attend_by(self, last: Any, features: dict[int, Tensor], affinity: Tensor) -> dict[int, Tensor]:
        def attend_layer(feature: Tensor) -> Tensor:
            value = split_heads(self._last_value(last.norm1(feature)), self._heads)
            return merge_heads(attend_by_affinity(affinity, value))

        return {index: attend_layer(feature) for index, feature in features.items()}

    def _embed_patches(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 1 + P, width], the input of the first layer."""
        embeddings = self._embeddings
        patches = embeddings.patch_embedding(pixels.to(embeddings.patch_embedding.weight.dtype))
        grid = (patches.shape[-2], patches.shape[-1])
        cls = embeddings.class_embedding.expand(len(pixels), 1, -1)
        x = torch.cat([cls, patches.flatten(2).transpose(1, 2)], 1) + self._position_embedding(grid)
        hidden: Tensor = self._pre_norm(x)
        return hidden

    def _position_embedding(self, grid: tuple[int, int]) -> Tensor:
        known = self._position_embeddings.get(grid)
        if known is None:
            table = self._embeddings.position_embedding.weight
            known = interpolate_position_embedding(table.float(), grid).to(table.dtype)
            # A new dictionary, because other threads may be reading the old one.
            recent = list(self._position_embeddings.items())[-15:]
            self._position_embeddings = {**dict(recent), grid: known}
        return known

    def _run_layer(self, layer: "_Layer", x: Tensor, summed: AttentionAccumulator | None) -> tuple[Tensor, Tensor]:
        """Run one layer -> its output and its normalised input, both [B, N, width]."""
        normed = layer.norm1(x)
        mixed = (summed.attend if summed else attend)(*self._split(layer.qkv(normed)))
        return layer.finish(x, merge_heads(mixed)), normed

    def _split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, N, 3 * width] -> query, key and value, each [B, H, N, d], views."""
        query, key, value = (split_heads(part, self._heads) for part in qkv.chunk(3, -1))
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


class _Layer:
    """A layer of the tower: its norms, and its weights, packed."""

    def __init__(self, block: Any, activation: str) -> None:
        attention = block.self_attn
        self.norm1, self.norm2 = block.layer_norm1, block.layer_norm2
        self.qkv = _pack(attention.q_proj, attention.k_proj, attention.v_proj)
        self.out = _pack(attention.out_proj)
        self.fc1, self.fc2 = _pack(block.mlp.fc1, gelu=activation == "gelu"), _pack(block.mlp.fc2)
        self.activation = _ACTIVATIONS.get(activation, block.mlp.activation_fn)

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """The layer's output from its input and its attention's output, all [B, N, width]."""
        x = self.out(mixed).add_(x)
        return self.fc2(self.activation(self.fc1(self.norm2(x)))).add_(x)


def _pack(*layers: Any, gelu: bool = False) -> Callable[[Tensor], Tensor]:
    """Linear layers as one function of their common input; outputs are concatenated."""
    weight = torch.cat([layer.weight for layer in layers])
    bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
    # oneDNN's layouts for few rows are a tenth faster for narrowing layers, those for many rows for widening ones.
    return packed_linear(weight, 256 if len(weight) < weight.shape[1] else 512, bias, gelu=gelu)


def _quick_gelu(x: Tensor) -> Tensor:
    """``x * sigmoid(1.702 * x)``, in place: these are the largest tensors of a layer."""
    return F.silu(x.mul_(1.702), inplace=True).div_(1.702)


# Others are the model's own functions. The exact GELU is part of the linear layer before it.
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": lambda x: x, "quick_gelu": _quick_gelu}
