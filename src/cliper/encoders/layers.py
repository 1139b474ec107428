"""The layers of the towers, with weights packed for the CPU."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.checkpoints.clip_config import TextConfig, VisionConfig
from cliper.kernels.linear import packed_linear
from cliper.ops.attention import merge_heads, split_heads

__all__ = ["TransformerLayer", "activation", "layer_norm", "linear"]

Function = Callable[[Tensor], Tensor]
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class TransformerLayer:
    """One layer of a tower: attention and MLP, each after a layer norm and added to its input.

    Args:
        config: of the tower.
        weights: of the model, by name.
        prefix: of the names of this layer's weights.
    """

    def __init__(self, config: TextConfig | VisionConfig, weights: Mapping[str, Tensor], prefix: str) -> None:
        eps, gelu = config.layer_norm_eps, config.hidden_act == "gelu"
        attention = f"{prefix}.self_attn"
        self.norm1 = layer_norm(weights, f"{prefix}.layer_norm1", eps)
        self.norm2 = layer_norm(weights, f"{prefix}.layer_norm2", eps)
        self.qkv = linear(weights, *(f"{attention}.{name}_proj" for name in "qkv"))
        scales = [weights.get(f"{prefix}.layer_scale{number}") for number in (1, 2)]
        self.out = linear(weights, f"{attention}.out_proj", scale=scales[0])
        self.fc1 = linear(weights, f"{prefix}.mlp.fc1", gelu=gelu)
        self.fc2 = linear(weights, f"{prefix}.mlp.fc2", scale=scales[1])
        self._activate: Function = (lambda x: x) if gelu else activation(config.hidden_act)  # fc1 includes exact GELU
        self._heads = config.num_attention_heads

    def run(self, x: Tensor, attend: Attend) -> tuple[Tensor, Tensor]:
        """The layer's output and its normalised input, both [B, N, width].

        Args:
            x: [B, N, width].
            attend: query, key and value -> attention output, all [B, H, N, d].
        """
        normed = self.norm1(x)
        x = self.out(merge_heads(attend(*self.split(self.qkv(normed))))).add_(x)
        return self.fc2(self._activate(self.fc1(self.norm2(x)))).add_(x), normed

    def split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, N, 3 * width] -> query, key and value, each [B, H, N, d], views."""
        query, key, value = (split_heads(part, self._heads) for part in qkv.chunk(3, -1))
        return query, key, value


def layer_norm(weights: Mapping[str, Tensor], name: str, eps: float) -> Function:
    """A layer norm over the last dimension."""
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return lambda x: F.layer_norm(x, weight.shape, weight, bias, eps)


def linear(weights: Mapping[str, Tensor], *names: str, gelu: bool = False, scale: Tensor | None = None) -> Function:
    """Linear layers as one function of their common input; outputs are concatenated.

    Args:
        weights: of the model, by name.
        names: of the layers; all have a bias, or none.
        gelu: whether an exact GELU follows.
        scale: [out], factors of the output, or None.
    """
    parts = [weights[f"{name}.weight"] for name in names]
    weight = torch.cat(parts) if len(parts) > 1 else parts[0]
    biases = [weights[f"{name}.bias"] for name in names if f"{name}.bias" in weights]
    if scale is not None:
        weight, biases = weight * scale[:, None], [bias * scale for bias in biases]
    # oneDNN's layouts for few rows are a tenth faster for narrowing layers, those for many rows for widening ones.
    rows = 256 if len(weight) < weight.shape[1] else 512
    return packed_linear(weight, rows, torch.cat(biases) if biases else None, gelu=gelu)


def activation(name: str) -> Function:
    """The activation that ``hidden_act`` names; it may write to its input."""
    functions: dict[str, Function] = {
        "gelu": F.gelu,
        "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
        "quick_gelu": _quick_gelu,
        "relu": torch.relu_,
    }
    return functions[name]


def _quick_gelu(x: Tensor) -> Tensor:
    """``x * sigmoid(1.702 * x)``, in place: these are the largest tensors of a layer."""
    return F.silu(x.mul_(1.702), inplace=True).div_(1.702)
