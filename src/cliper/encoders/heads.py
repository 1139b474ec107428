"""From the image tower's last hidden states to embeddings of patches and of the whole image, not yet of length 1."""

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor

from cliper.checkpoints.clip_config import VisionConfig
from cliper.encoders.layers import activation, layer_norm, linear
from cliper.ops.attention import merge_heads, split_heads

__all__ = ["PoolingHead", "ProjectionHead"]

Function = Callable[[Tensor], Tensor]


class ProjectionHead:
    """Layer norm and projection; the class token is the image. A family without a projection has none."""

    def __init__(self, config: VisionConfig, weights: Mapping[str, Tensor]) -> None:
        name = "visual_projection"
        projected = f"{name}.weight" in weights
        self.width = len(weights[f"{name}.weight"]) if projected else config.hidden_size
        self._norm = layer_norm(weights, "vision_model.post_layernorm", config.layer_norm_eps)
        self._projection: Function = linear(weights, name) if projected else lambda x: x

    def patches(self, x: Tensor) -> Tensor:
        """[B, P, width of the tower], of patches only -> [B, P, D]."""
        return self._projection(self._norm(x))

    def image(self, x: Tensor) -> Tensor:
        """[B, N, width of the tower], of all tokens -> [B, D]."""
        return self._projection(self._norm(x[:, 0]))


class PoolingHead:
    """SigLIP's: a learned query attends to all patches; an MLP follows.

    A patch is embedded as if the query attended to it alone: then its weight is 1, and query and key have no effect.
    """

    def __init__(self, config: VisionConfig, weights: Mapping[str, Tensor]) -> None:
        name = "vision_model.head"
        self.width, self._heads = config.hidden_size, config.num_attention_heads
        self._norm = layer_norm(weights, "vision_model.post_layernorm", config.layer_norm_eps)
        kinds = {
            "weight": weights[f"{name}.attention.in_proj_weight"],
            "bias": weights[f"{name}.attention.in_proj_bias"],
        }
        parts = {f"{k}.{leaf}": part for leaf, t in kinds.items() for k, part in zip("qkv", t.chunk(3), strict=True)}
        self._query = linear(parts, "q")(weights[f"{name}.probe"])  # [1, 1, width]
        self._key, self._value = linear(parts, "k"), linear(parts, "v")
        self._out = linear(weights, f"{name}.attention.out_proj")
        self._head_norm = layer_norm(weights, f"{name}.layernorm", config.layer_norm_eps)
        self._fc1, self._fc2 = linear(weights, f"{name}.mlp.fc1"), linear(weights, f"{name}.mlp.fc2")
        self._activate = activation(config.hidden_act)

    def patches(self, x: Tensor) -> Tensor:
        """[B, P, width of the tower], of patches only -> [B, P, D]."""
        return self._finish(self._value(self._norm(x)))

    def image(self, x: Tensor) -> Tensor:
        """[B, N, width of the tower], of all tokens -> [B, D]."""
        x = self._norm(x)
        projected = (self._query.expand(len(x), -1, -1), self._key(x), self._value(x))
        query, key, value = (split_heads(part, self._heads) for part in projected)
        return self._finish(merge_heads(F.scaled_dot_product_attention(query, key, value)))[:, 0]

    def _finish(self, mixed: Tensor) -> Tensor:
        out = self._out(mixed)
        return out + self._fc2(self._activate(self._fc1(self._head_norm(out))))
