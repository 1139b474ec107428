"""Configuration of a CLIP: fields with the names and defaults of ``transformers``; others are not read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ACTIVATIONS", "ClipConfig", "TextConfig", "VisionConfig"]

T = TypeVar("T")

ACTIVATIONS = ("gelu", "quick_gelu")
"""Activations of CLIP's layers."""

_KNOWN_ACTIVATIONS = (*ACTIVATIONS, "gelu_pytorch_tanh", "relu")


@dataclass(frozen=True)
class TextConfig:
    """The text tower.

    Class variables, which are no fields of ``config.json``, tell its family.
    """

    causal: ClassVar[bool] = True
    """Whether tokens attend to earlier ones only."""
    pooling: ClassVar[str] = "end"
    """The text's embedding: that of the first token ``"end"``, of the ``"last"`` token, or the ``"mean"`` of all."""
    tokenizer: ClassVar[str] = "clip"
    """``"clip"``, CLIP's rules; or ``"file"``, those of ``tokenizer.json``, or ``"lowercase"``, these in lower case."""

    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    vocab_size: int = 49408
    max_position_embeddings: int = 77
    eos_token_id: int = 49407


@dataclass(frozen=True)
class VisionConfig:
    """The image tower."""

    position_resize: ClassVar[str] = "bilinear"
    """As :func:`cliper.ops.interpolate_position_embedding` takes it."""
    class_token: ClassVar[bool] = True
    """Whether there is a class token, whose output is the image's embedding; else a head pools the patches."""
    num_register_tokens: ClassVar[int] = 0

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    image_size: int = 224
    patch_size: int = 32


@dataclass(frozen=True)
class ClipConfig:
    """Both towers and the width of their joint embeddings. Subclasses are the other families."""

    text_class: ClassVar[type[TextConfig]] = TextConfig
    vision_class: ClassVar[type[VisionConfig]] = VisionConfig
    pixel_mean: ClassVar[tuple[float, float, float]] = (0.48145466, 0.4578275, 0.40821073)
    pixel_std: ClassVar[tuple[float, float, float]] = (0.26862954, 0.26130258, 0.27577711)
    preset: ClassVar[str | None] = None
    """Recommended settings; None chooses a preset by the size of the image tower."""

    text: TextConfig
    vision: VisionConfig
    projection_dim: int = 512

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """From the content of ``config.json``.

        Old files have ``text_config_dict`` and ``vision_config_dict``, which replace the sections without ``_dict``.

        Raises:
            ValueError: a value of another type, or sizes that do not fit together.
        """
        return cls(
            _section(cls.text_class, "text_config", data),
            _section(cls.vision_class, "vision_config", data),
            _value("projection_dim", data.get("projection_dim", cls.projection_dim), cls.projection_dim),
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each weight by its name."""
        text, vision = self.text.hidden_size, self.vision.hidden_size
        return self._common_shapes() | {
            "logit_scale": (),
            "text_projection.weight": (self.projection_dim, text),
            "visual_projection.weight": (self.projection_dim, vision),
            "vision_model.pre_layrnorm.weight": (vision,),
            "vision_model.pre_layrnorm.bias": (vision,),
        }

    @staticmethod
    def convert(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        """A stored weight, or parts of it, with the names and shapes of :meth:`shapes`."""
        yield name, tensor

    def _common_shapes(self) -> dict[str, tuple[int, ...]]:
        """Weights of every family."""
        text, vision, patch = self.text, self.vision, self.vision.patch_size
        positions = (vision.image_size // patch) ** 2 + vision.class_token
        shapes: dict[str, tuple[int, ...]] = {
            "text_model.embeddings.token_embedding.weight": (text.vocab_size, text.hidden_size),
            "text_model.embeddings.position_embedding.weight": (text.max_position_embeddings, text.hidden_size),
            "vision_model.embeddings.patch_embedding.weight": (vision.hidden_size, 3, patch, patch),
            "vision_model.embeddings.position_embedding.weight": (positions, vision.hidden_size),
        }
        if vision.class_token:
            shapes["vision_model.embeddings.class_embedding"] = (vision.hidden_size,)
        for tower, config in (("text_model", text), ("vision_model", vision)):
            width, hidden = config.hidden_size, config.intermediate_size
            norm = "final_layer_norm" if tower == "text_model" else "post_layernorm"
            shapes |= {f"{tower}.{norm}.{leaf}": (width,) for leaf in ("weight", "bias")}
            layer: dict[str, tuple[int, ...]] = {
                **{f"self_attn.{name}_proj": (width, width) for name in ("q", "k", "v", "out")},
                "mlp.fc1": (hidden, width),
                "mlp.fc2": (width, hidden),
                "layer_norm1": (width,),
                "layer_norm2": (width,),
            }
            for index in range(config.num_hidden_layers):
                for name, shape in layer.items():
                    shapes[f"{tower}.encoder.layers.{index}.{name}.weight"] = shape
                    shapes[f"{tower}.encoder.layers.{index}.{name}.bias"] = shape[:1]
        return shapes


def _section(config_class: type[T], name: str, data: Mapping[str, Any]) -> T:
    """One of the towers' configurations."""
    old = data.get(f"{name}_dict")
    given = (data.get(name) or {}) if old is None else old
    if not isinstance(given, dict):
        raise ValueError(f"{name}: expected an object, got {type(given).__name__}")
    values: dict[str, Any] = {
        item.name: _value(f"{name}.{item.name}", given.get(item.name, item.default), item.default)
        for item in fields(config_class)  # type: ignore[arg-type]
    }
    width, heads = values["hidden_size"], values["num_attention_heads"]
    if width % heads:
        raise ValueError(f"{name}: expected a hidden_size that {heads} attention heads divide, got {width}")
    if values["hidden_act"] not in _KNOWN_ACTIVATIONS:
        known = ", ".join(_KNOWN_ACTIVATIONS)
        raise ValueError(f"{name}.hidden_act: expected one of {known}, got {values['hidden_act']!r}")
    return config_class(**values)


def _value(name: str, value: Any, default: Any) -> Any:
    """The value, which must have the type of the default; numbers must be above 0, except the number of a token."""
    if value is None and name.endswith("_id"):
        return default
    kind = int | float if isinstance(default, float) else type(default)
    fits = isinstance(value, kind) and not isinstance(value, bool)
    if not fits or (not isinstance(value, str) and value <= 0 and not name.endswith("_id")):
        what = {int: "a whole number above 0", float: "a number above 0", str: "a name"}[type(default)]
        raise ValueError(f"{name}: expected {what}, got {value!r}")
    return value
