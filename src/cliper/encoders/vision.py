"""The image tower, layer by layer.

Source: arXiv 2411.13836; ``docs/method.md``, section 2.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.checkpoints.clip_config import VisionConfig
from cliper.encoders.base import ImageFeatures, ProxyAffinity
from cliper.encoders.heads import PoolingHead, ProjectionHead
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
from cliper.ops.windows import Window, WindowMerger, average_windows, propagate_windows, sum_windows, window_grid

__all__ = ["VisionTower"]

_WINDOW_BATCH_SIZE = 8


class _Hidden(NamedTuple):
    """What the layers before the last one give for a batch.

    Args:
        features: [B, N, width] by layer, of the layers that are embedded.
        last_input: [B, N, width], the input of the last layer.
        total: [B, H, N, N] float32, the sum of the attention maps, for fused attention.
    """

    features: dict[int, Tensor]
    last_input: Tensor
    total: Tensor | None


class VisionTower:
    """The image tower of a CLIP, or of another family.

    Args:
        config: its shape.
        weights: of the model, by name.
    """

    def __init__(self, config: VisionConfig, weights: Mapping[str, Tensor]) -> None:
        embeddings, encoder = "vision_model.embeddings", "vision_model.encoder.layers"
        self._patch_embedding = weights[f"{embeddings}.patch_embedding.weight"]
        self._patch_bias = weights.get(f"{embeddings}.patch_embedding.bias")
        self._class_embedding = weights.get(f"{embeddings}.class_embedding")
        self._registers = weights.get(f"{embeddings}.register_tokens")
        self._position_table = weights[f"{embeddings}.position_embedding.weight"]
        self._position_resize = config.position_resize
        self._prefix = config.class_token + config.num_register_tokens  # tokens before those of the patches
        has_norm = "vision_model.pre_layrnorm.weight" in weights
        norm = layer_norm(weights, "vision_model.pre_layrnorm", config.layer_norm_eps) if has_norm else None
        self._pre_norm = norm or (lambda x: x)
        self._layers = [TransformerLayer(config, weights, f"{encoder}.{i}") for i in range(config.num_hidden_layers)]
        self._last_value = linear(weights, f"{encoder}.{config.num_hidden_layers - 1}.self_attn.v_proj")
        self._head = (ProjectionHead if config.class_token else PoolingHead)(config, weights)
        self._heads = config.num_attention_heads
        self.patch_size = config.patch_size
        self.num_layers = config.num_hidden_layers
        self.embedding_width = self._head.width
        self._position_embeddings: dict[tuple[int, int], Tensor] = {}  # by grid

    @torch.inference_mode()
    def encode(
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
        """Features of each image of a batch.

        Args:
            pixels: [B, 3, H, W] normalised pixels, H and W multiples of the patch size.
            recipe: the published version of the method.
            attention: the last layer's attention: ``"fused"``, one of the ablations, or a function that computes the
                affinity with another model, called for the batch and for each batch of windows.
            layers: the layers (from 0) after which patches are embedded.
            window: side of the sliding windows in pixels, a multiple of the patch size; 0 means no windows.
            window_context: whether each window attends to all windows of its image.
            whole_image: whether the embeddings of the whole images are computed.

        Raises:
            ShapeError: ``pixels`` has another shape, or a side is not a multiple of the patch size.
        """
        self._check(pixels, window)
        height, width = pixels.shape[-2:]
        grid = (height // self.patch_size, width // self.patch_size)
        hidden = self._run_layers(pixels, attention, layers)
        embeddings, affinity = self._embed(pixels, hidden, recipe, attention, layers)
        found = [ImageFeatures(e, a, grid) for e, a in zip(embeddings, affinity, strict=True)]
        if window and window_context and attention != "identity":
            totals = [None] * len(pixels) if hidden.total is None else hidden.total
            given = zip(found, pixels, totals, strict=True)
            merged = [
                self._encode_context(p, window, recipe, attention, layers, one.affinity, t) for one, p, t in given
            ]
            found = [replace(one, window_embeddings=m) for one, m in zip(found, merged, strict=True)]
        elif window:
            merged = [self._encode_windows(p, window, recipe, attention, layers) for p in pixels]
            found = [replace(one, window_embeddings=m) for one, m in zip(found, merged, strict=True)]
        if whole_image:
            whole = self._embed_images(hidden.last_input)
            found = [replace(one, image_embedding=w) for one, w in zip(found, whole, strict=True)]
        return found

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
        return x[:, self._prefix :]

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

    def _run_layers(self, pixels: Tensor, attention: str | ProxyAffinity, layers: Sequence[int]) -> _Hidden:
        """Run the tower up to the last layer."""
        fused = attention == "fused"
        summed = AttentionAccumulator() if fused else None
        wanted = set(layers)
        if isinstance(attention, str) and not fused:
            wanted.add(self.num_layers - 1)  # an ablation's affinity is computed from the last layer
        features: dict[int, Tensor] = {}
        x = self._embed_patches(pixels)
        for index, block in enumerate(self._layers[:-1]):
            x, normed = block.run(x, summed.attend if summed else attend)
            if index in wanted:
                features[index] = normed
        if self.num_layers - 1 in wanted:
            features[self.num_layers - 1] = x
        return _Hidden(features, x, None if summed is None else summed.total)

    def _embed(
        self,
        pixels: Tensor,
        hidden: _Hidden,
        recipe: Recipe,
        attention: str | ProxyAffinity,
        layers: Sequence[int],
    ) -> tuple[Tensor, Tensor]:
        """Unit embeddings [B, L', P, D] and affinity [B, P, P], both float32."""
        if hidden.total is not None:
            outputs, affinity = self._fuse(self._values(hidden.features), hidden.total, recipe)
        elif isinstance(attention, str):
            outputs, affinity = self._ablate(hidden.features, attention)
        else:
            height, width = pixels.shape[-2:]
            affinity = attention(pixels, (height // self.patch_size, width // self.patch_size))
            outputs = self._attend_by(self._values(hidden.features), affinity)
        return self._project(outputs, hidden.features, recipe, layers), affinity

    def _project(
        self, outputs: Mapping[int, Tensor], features: Mapping[int, Tensor], recipe: Recipe, layers: Sequence[int]
    ) -> Tensor:
        """Attention outputs and features, by layer [B, N, width] -> unit embeddings [B, L', P, D] float32."""
        first = outputs[layers[0]]
        shape = (len(first), len(layers), first.shape[1] - self._prefix, self.embedding_width)
        embeddings = first.new_empty(shape, dtype=torch.float32)
        by_layer = []
        for index, layer in enumerate(layers):
            y = self._layers[-1].out(outputs[layer])
            if recipe.subtract_input:
                y = y - features[layer]
            y = self._head.patches(y[:, self._prefix :]).float()
            if torch.compiler.is_exporting():  # a part of a tensor that is written becomes a slow scatter
                by_layer.append(F.normalize(y, dim=-1))
            else:
                F.normalize(y, dim=-1, out=embeddings[:, index])
        return torch.stack(by_layer, 1) if by_layer else embeddings

    def _values(self, features: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """The last layer's values of the features, [B, N, width] by layer, in ascending order."""
        return {layer: self._last_value(self._layers[-1].norm1(features[layer])) for layer in sorted(features)}

    def _fuse(self, values: Mapping[int, Tensor], total: Tensor, recipe: Recipe) -> tuple[dict[int, Tensor], Tensor]:
        order = list(values)
        by_layer = [split_heads(value, self._heads) for value in values.values()]
        by_image = zip(total, zip(*by_layer, strict=True), strict=True)  # values: [H, N, d] of each layer
        fused = [fuse_values(one, value, order, self.num_layers, recipe) for one, value in by_image]
        mixed = torch.stack([m for m, _ in fused], 1) if len(fused) > 1 else fused[0][0][:, None]
        outputs = dict(zip(order, map(merge_heads, mixed), strict=True))  # each [B, N, width]
        return outputs, torch.stack([mean for _, mean in fused])[:, self._prefix :, self._prefix :]

    def _ablate(self, features: Mapping[int, Tensor], attention: str) -> tuple[dict[int, Tensor], Tensor]:
        last, outputs = self._layers[-1], {}
        for index, feature in sorted(features.items()):
            mixed, affinity = ablated_attention(attention, *last.split(last.qkv(last.norm1(feature))))
            outputs[index] = merge_heads(mixed)
        return outputs, affinity[:, self._prefix :, self._prefix :]  # of the last layer, which comes last

    def _attend_by(self, values: Mapping[int, Tensor], affinity: Tensor) -> dict[int, Tensor]:
        return {
            layer: merge_heads(attend_by_affinity(affinity, split_heads(value, self._heads), self._prefix))
            for layer, value in values.items()
        }

    def _embed_images(self, x: Tensor) -> Tensor:
        """[B, N, width], the input of the last layer -> [B, D] float32, the model's own embeddings."""
        x, _ = self._layers[-1].run(x, attend)
        return F.normalize(self._head.image(x).float(), dim=-1)

    def _embed_patches(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, N, width], the input of the first layer: class token, registers, patches."""
        kernel = self._patch_embedding
        patches = F.conv2d(pixels.to(kernel.dtype), kernel, self._patch_bias, stride=self.patch_size)
        grid = (patches.shape[-2], patches.shape[-1])
        x = patches.flatten(2).transpose(1, 2)
        if self._class_embedding is not None:
            x = torch.cat([self._class_embedding.expand(len(pixels), 1, -1), x], 1)
        x = x + self._position_embedding(grid)
        if self._registers is not None:
            x = torch.cat([x[:, :1], self._registers.expand(len(pixels), -1, -1), x[:, 1:]], 1)
        return self._pre_norm(x)

    def _position_embedding(self, grid: tuple[int, int]) -> Tensor:
        # A grid of symbolic sizes, in an export, is no key.
        known = None if torch.compiler.is_exporting() else self._position_embeddings.get(grid)
        if known is None:
            table = self._position_table
            known = interpolate_position_embedding(
                table.float(), grid, class_token=self._class_embedding is not None, mode=self._position_resize
            ).to(table.dtype)
            if torch.compiler.is_exporting():
                return known
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
        for batch, crops in _crop_windows(pixels, window_grid(height, width, crop)):
            hidden = self._run_layers(crops, attention, layers)
            embeddings, affinity = self._embed(crops, hidden, recipe, attention, layers)
            for w, e, a in zip(batch, embeddings, affinity, strict=True):
                merger.add(w, e, a)
        return merger.merged()

    def _encode_context(
        self,
        pixels: Tensor,
        crop: int,
        recipe: Recipe,
        attention: str | ProxyAffinity,
        layers: Sequence[int],
        affinity: Tensor,
        total: Tensor | None,
    ) -> Tensor:
        """[3, H, W] -> [L', P, D], embeddings from windows that attend to all windows of the image.

        Args:
            affinity: [P, P], of the whole image.
            total: [H, N, N], the sum of the whole image's attention maps, for fused attention.
        """
        height, width = pixels.shape[-2:]
        grid = (height // self.patch_size, width // self.patch_size)
        windows = window_grid(height, width, crop)
        ablated = isinstance(attention, str) and attention != "fused"
        kind = attention if ablated else "vanilla"  # other maps are those of the whole image
        parts = [self._run_layers(crops, kind, layers).features for _, crops in _crop_windows(pixels, windows)]
        features = {layer: torch.cat([part[layer] for part in parts]) for layer in sorted(parts[0])}  # [W, n, width]
        average = partial(average_windows, windows=windows, grid=grid, patch=self.patch_size)
        if ablated:
            outputs, rows = self._ablate_in_context(features, str(attention), windows, grid)
            embeddings = self._project(outputs, features, recipe, layers)
            mean = torch.stack([average(embeddings[:, index]) for index in range(len(layers))])
            return propagate_windows(mean, average(rows))

        def whole(x: Tensor) -> Tensor:
            """[W, n, width] -> [1, N, width], the means of the tokens before the patches, and of patches."""
            return torch.cat([x[:, : self._prefix].mean(0), average(x[:, self._prefix :])])[None]

        values = {layer: whole(value) for layer, value in self._values(features).items()}
        if total is not None:
            outputs, _ = self._fuse(values, total[None], recipe)
        else:
            outputs = self._attend_by(values, affinity[None])
        features = {layer: whole(feature) for layer, feature in features.items()}
        return propagate_windows(self._project(outputs, features, recipe, layers)[0], affinity)

    def _ablate_in_context(
        self, features: Mapping[int, Tensor], attention: str, windows: Sequence[Window], grid: tuple[int, int]
    ) -> tuple[dict[int, Tensor], Tensor]:
        """Attention of each window to all windows, from features [W, n, width] by layer.

        Returns:
            The outputs [W, n, width] by layer, and the last layer's attention to the patches of the image, [W, p, P].
        """
        last, outputs = self._layers[-1], {}
        rows: list[Tensor] = []
        for index, feature in sorted(features.items()):
            heads = last.split(last.qkv(last.norm1(feature)))  # query, key, value: [W, H, n, d]
            context = [x.transpose(0, 1).flatten(1, 2)[None] for x in heads]  # [1, H, W * n, d]
            mixed = []
            for query, key, value in zip(*(x.split(1) for x in heads), strict=True):
                output, attended = ablated_attention(attention, query, key, value, context)
                mixed.append(merge_heads(output))
                if index == self.num_layers - 1:
                    rest = attended[0, self._prefix :].unflatten(-1, (len(windows), -1))
                    by_window = rest[:, :, self._prefix :]  # [p, W, p]
                    rows.append(sum_windows(by_window.permute(1, 2, 0), windows, grid, self.patch_size).t())
            outputs[index] = torch.cat(mixed)
        return outputs, torch.stack(rows)


def _crop_windows(pixels: Tensor, windows: Sequence[Window]) -> Iterator[tuple[Sequence[Window], Tensor]]:
    """Batches of windows, and their pixels [w, 3, h, h] cut out of [3, H, W]."""
    for first in range(0, len(windows), _WINDOW_BATCH_SIZE):
        batch = windows[first : first + _WINDOW_BATCH_SIZE]
        yield batch, torch.stack([pixels[:, w.top : w.bottom, w.left : w.right] for w in batch])
