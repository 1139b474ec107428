"""Encoders beside CLIP, read as ``transformers`` stores them: MetaCLIP 2, SigLIP and SigLIP 2, TIPSv2."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from cliper.checkpoints.clip_config import ClipConfig, TextConfig, VisionConfig
from cliper.checkpoints.open_clip import convert_open_clip

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CONFIGS", "MetaClip2Config", "SiglipConfig", "Tipsv2Config"]


@dataclass(frozen=True)
class _MetaClip2TextConfig(TextConfig):
    """CLIP's, with a tokenizer for many languages."""

    tokenizer: ClassVar[str] = "file"


@dataclass(frozen=True)
class MetaClip2Config(ClipConfig):
    """MetaCLIP 2: CLIP with another tokenizer."""

    text_class: ClassVar[type[TextConfig]] = _MetaClip2TextConfig
    preset: ClassVar[str | None] = "metaclip2-b-16/voc21"


@dataclass(frozen=True)
class _BidirectionalTextConfig(TextConfig):
    """All tokens attend to all; texts are in lower case. SigLIP's and TIPSv2's towers have one size."""

    causal: ClassVar[bool] = False
    tokenizer: ClassVar[str] = "lowercase"
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_attention_heads: int = 12
    vocab_size: int = 32000
    max_position_embeddings: int = 64


@dataclass(frozen=True)
class _SiglipTextConfig(_BidirectionalTextConfig):
    """Padding takes part; the embedding is that of the last token."""

    pooling: ClassVar[str] = "last"
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6


@dataclass(frozen=True)
class _SiglipVisionConfig(VisionConfig):
    """No class token; a head pools the patches by attention."""

    position_resize: ClassVar[str] = "bicubic"
    class_token: ClassVar[bool] = False
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    patch_size: int = 16


@dataclass(frozen=True)
class SiglipConfig(ClipConfig):
    """SigLIP, and SigLIP 2 of a fixed resolution."""

    text_class: ClassVar[type[TextConfig]] = _SiglipTextConfig
    vision_class: ClassVar[type[VisionConfig]] = _SiglipVisionConfig
    pixel_mean: ClassVar[tuple[float, float, float]] = (0.5, 0.5, 0.5)
    pixel_std: ClassVar[tuple[float, float, float]] = (0.5, 0.5, 0.5)
    preset: ClassVar[str | None] = "siglip2-b-16/voc21"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """As :meth:`ClipConfig.from_dict`; the width of the embeddings is that of the image tower."""
        config = super().from_dict({**data, "projection_dim": 1})
        return cls(config.text, config.vision, config.vision.hidden_size)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each weight by its name."""
        width, hidden, head = self.vision.hidden_size, self.vision.intermediate_size, "vision_model.head"
        weights = {
            "text_projection": (width, self.text.hidden_size),
            f"{head}.attention.out_proj": (width, width),
            f"{head}.layernorm": (width,),
            f"{head}.mlp.fc1": (hidden, width),
            f"{head}.mlp.fc2": (width, hidden),
        }
        return {
            **self._common_shapes(),
            "vision_model.embeddings.patch_embedding.bias": (width,),
            "logit_scale": (1,),
            "logit_bias": (1,),
            f"{head}.probe": (1, 1, width),
            f"{head}.attention.in_proj_weight": (3 * width, width),
            f"{head}.attention.in_proj_bias": (3 * width,),
            **{f"{name}.weight": shape for name, shape in weights.items()},
            **{f"{name}.bias": shape[:1] for name, shape in weights.items()},
        }

    @staticmethod
    def convert(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The text tower's head is a projection."""
        yield name.replace("text_model.head.", "text_projection."), tensor


@dataclass(frozen=True)
class _Tipsv2TextConfig(_BidirectionalTextConfig):
    """The embedding is the mean of all tokens. The position table is computed."""

    pooling: ClassVar[str] = "mean"
    hidden_act: str = "relu"


@dataclass(frozen=True)
class _Tipsv2VisionConfig(VisionConfig):
    """With register tokens, of which the first is a second class token, and factors of each layer's two outputs."""

    position_resize: ClassVar[str] = "antialiased"
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    image_size: int = 448
    patch_size: int = 14
    num_register_tokens: int = 1  # type: ignore[misc]  # a class variable of the others


@dataclass(frozen=True)
class Tipsv2Config(ClipConfig):
    """TIPSv2. Neither tower has a projection."""

    text_class: ClassVar[type[TextConfig]] = _Tipsv2TextConfig
    vision_class: ClassVar[type[VisionConfig]] = _Tipsv2VisionConfig
    pixel_mean: ClassVar[tuple[float, float, float]] = (0.0, 0.0, 0.0)
    pixel_std: ClassVar[tuple[float, float, float]] = (1.0, 1.0, 1.0)
    preset: ClassVar[str | None] = "tipsv2-b-14/voc21"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """As :meth:`ClipConfig.from_dict`.

        Raises:
            ValueError: gated MLPs (TIPSv2-g) or token embeddings that are not scaled, which are not supported.
        """
        config = super().from_dict({**data, "projection_dim": 1})
        text, vision = (data.get(f"{name}_config") or {} for name in ("text", "vision"))
        if vision.get("use_swiglu_ffn") or not text.get("scale_sqrt_depth", True):
            raise ValueError("expected use_swiglu_ffn false and scale_sqrt_depth true; others are not supported")
        width, ratio = config.vision.hidden_size, vision.get("mlp_ratio", 4)
        if not isinstance(ratio, int | float) or not 0 < ratio <= 100:
            raise ValueError(f"vision_config.mlp_ratio: expected a number from 0 to 100, got {ratio!r}")
        return cls(config.text, replace(config.vision, intermediate_size=max(1, int(width * ratio))), width)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each weight by its name."""
        width, tower = self.vision.hidden_size, "vision_model"
        layers, common = range(self.vision.num_hidden_layers), self._common_shapes()
        del common["text_model.embeddings.position_embedding.weight"]  # computed
        return {
            **common,
            f"{tower}.embeddings.patch_embedding.bias": (width,),
            f"{tower}.embeddings.register_tokens": (self.vision.num_register_tokens, width),
            **{f"{tower}.encoder.layers.{i}.layer_scale{n}": (width,) for i in layers for n in (1, 2)},
        }

    @staticmethod
    def convert(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The text tower has OpenCLIP's names, the image tower those of DINOv2's code."""
        tower, _, rest = name.partition(".")
        if tower == "text_encoder":
            yield from convert_open_clip(rest, tensor)
        elif match := re.fullmatch(r"blocks\.(\d+)\.(.+?)(\.weight|\.bias|)", rest):
            layer, part, leaf = f"vision_model.encoder.layers.{match[1]}", match[2], match[3]
            if part == "attn.qkv":
                yield from zip((f"{layer}.self_attn.{k}_proj{leaf}" for k in "qkv"), tensor.chunk(3), strict=True)
            else:
                yield f"{layer}.{_TIPSV2_PARTS.get(part, part)}{leaf}", tensor
        elif rest in _TIPSV2_TOKENS:
            tokens = tensor.squeeze(0)
            yield f"vision_model.embeddings.{_TIPSV2_TOKENS[rest]}", tokens[0] if rest == "cls_token" else tokens
        else:
            rest = rest.replace("patch_embed.proj.", "embeddings.patch_embedding.").replace("norm.", "post_layernorm.")
            yield f"vision_model.{rest}", tensor


_TIPSV2_PARTS = {
    "attn.proj": "self_attn.out_proj",
    "ls1.gamma": "layer_scale1",
    "ls2.gamma": "layer_scale2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
}
_TIPSV2_TOKENS = {
    "cls_token": "class_embedding",
    "pos_embed": "position_embedding.weight",
    "register_tokens": "register_tokens",
}

CONFIGS: dict[str, type[ClipConfig]] = {
    "clip": ClipConfig,
    "metaclip_2": MetaClip2Config,
    "siglip": SiglipConfig,
    "tipsv2": Tipsv2Config,
}
"""``model_type`` of ``config.json`` -> its class."""
