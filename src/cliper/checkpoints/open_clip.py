"""OpenCLIP's files, and OpenAI's own, as a CLIP in the format of ``transformers``.

Both have the same names of weights. Sizes are taken from the weights; the number of heads and the activation are in
``open_clip_config.json``, if that is beside them.
"""

from __future__ import annotations

import itertools
import re
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliper.checkpoints.clip_config import ACTIVATIONS, ClipConfig
from cliper.checkpoints.tensors import iter_tensors
from cliper.checkpoints.torchscript import is_torchscript
from cliper.checkpoints.validate import OPEN_CLIP_CONFIG, read_json, weight_paths
from cliper.errors import CheckpointError, reraise

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CLIP_VOCAB_SIZE", "convert_open_clip", "read_open_clip_config"]

CLIP_VOCAB_SIZE = 49_408
"""Number of tokens of CLIP's own vocabulary, which is bundled."""

_LAYER = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)\.(weight|bias|in_proj_weight|in_proj_bias)")
_LAYER_PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_OTHERS = {
    "logit_scale": "logit_scale",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "text_projection": "text_projection.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.proj": "visual_projection.weight",
    **{f"ln_final.{leaf}": f"text_model.final_layer_norm.{leaf}" for leaf in ("weight", "bias")},
    **{f"visual.ln_pre.{leaf}": f"vision_model.pre_layrnorm.{leaf}" for leaf in ("weight", "bias")},
    **{f"visual.ln_post.{leaf}": f"vision_model.post_layernorm.{leaf}" for leaf in ("weight", "bias")},
}
_UNUSED = ("attn_mask", "context_length", "input_resolution", "vocab_size")

# Of OpenCLIP's configuration, what a ViT of CLIP's own form may have; anything else would change what is computed.
_KNOWN = {
    "": {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg", "custom_text"},
    "vision_cfg": {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio", "patch_dropout"},
    "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"},
}
# Width of the image tower -> of a head, where no configuration says it (ViT-H, ViT-g and ViT-bigG).
_HEAD_WIDTHS = {1280: 80, 1408: 88, 1664: 104}


def read_open_clip_config(place: Path, activation: str | None = None) -> ClipConfig:
    """The configuration of OpenCLIP's or OpenAI's weights.

    Args:
        place: a weight file, or a folder with one and ``open_clip_config.json``.
        activation: ``"gelu"`` or ``"quick_gelu"``; None takes it from ``open_clip_config.json`` beside the weights, and
            for a TorchScript archive, which is OpenAI's, ``"quick_gelu"``.

    Raises:
        CheckpointError: another architecture, an activation that is not known, or files that cannot be read.
    """
    paths = weight_paths(place, "clip")
    config_path = paths[0].parent / OPEN_CLIP_CONFIG
    given = read_json(config_path, "it describes the model") if config_path.is_file() else {}
    model = given.get("model_cfg", given)
    with reraise(ValueError, CheckpointError, str(config_path)):
        vision, text = _check_known(model)
        _check_pixels(given.get("preprocess_cfg"))
    if activation is None and given:
        activation = "quick_gelu" if model.get("quick_gelu") else "gelu"
    if activation is None and is_torchscript(paths[0]):
        activation = "quick_gelu"
    if activation is None:
        raise CheckpointError(
            f"{place}: expected its activation in {OPEN_CLIP_CONFIG} beside it, got none; give --activation, one of "
            f"{', '.join(ACTIVATIONS)} (in Python: append @ and the name)"
        )
    expected = f"{place}: expected the weights of a CLIP with a ViT, in OpenCLIP's names"
    with reraise((LookupError, RuntimeError, ValueError), CheckpointError, expected):
        stored = itertools.chain.from_iterable(map(iter_tensors, paths))
        shapes = {name: tuple(t.shape) for old, tensor in stored for name, t in convert_open_clip(old, tensor)}
        width, _, patch, _ = shapes["vision_model.embeddings.patch_embedding.weight"]
        vocab_size, text_width = shapes["text_model.embeddings.token_embedding.weight"]
        head_width = vision.get("head_width", 64 if given else _HEAD_WIDTHS.get(width, 64))
        if vision.get("head_width", 1) > width:
            raise ValueError(f"vision_cfg.head_width: expected at most the width {width}, got {head_width}")
        data = {
            "projection_dim": shapes["visual_projection.weight"][0],
            "text_config": {
                **_tower(shapes, "text_model", activation),
                "hidden_size": text_width,
                "num_attention_heads": text.get("heads", 8 if given else max(1, text_width // 64)),
                "vocab_size": vocab_size,
                "max_position_embeddings": shapes["text_model.embeddings.position_embedding.weight"][0],
                "eos_token_id": 2,  # the end token is the one with the largest id
            },
            "vision_config": {
                **_tower(shapes, "vision_model", activation),
                "hidden_size": width,
                "num_attention_heads": max(1, width // head_width),
                "patch_size": patch,
                "image_size": patch
                * round((shapes["vision_model.embeddings.position_embedding.weight"][0] - 1) ** 0.5),
            },
        }
        config = ClipConfig.from_dict(data)
    if vocab_size != CLIP_VOCAB_SIZE and not (place / "tokenizer.json").is_file():
        raise CheckpointError(
            f"{place}: expected CLIP's vocabulary of {CLIP_VOCAB_SIZE:,} tokens, got {vocab_size:,}; give the "
            f"folder of the weights, with {OPEN_CLIP_CONFIG} and tokenizer.json"
        )
    return config


def convert_open_clip(stored: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Weights with the names and shapes of ``transformers``, views of one of OpenCLIP's.

    Raises:
        ValueError: a weight that is in no CLIP with a ViT.
        RuntimeError: one that has too few dimensions.
    """
    name = stored.removeprefix("module.").removeprefix("text.")
    if name in _OTHERS:
        if name in ("text_projection", "visual.proj") and tensor.dim() == 2:
            tensor = tensor.T
        yield _OTHERS[name], tensor.reshape(()) if name == "logit_scale" and tensor.numel() == 1 else tensor
    elif match := _LAYER.fullmatch(name):
        layer = f"{'vision' if match[1] else 'text'}_model.encoder.layers.{match[2]}"
        part, leaf = match[3], match[4]
        if part == "attn" and leaf.startswith("in_proj_"):
            for kind, piece in zip("qkv", tensor.chunk(3), strict=True):
                yield f"{layer}.self_attn.{kind}_proj.{leaf.removeprefix('in_proj_')}", piece
        elif part in _LAYER_PARTS:
            yield f"{layer}.{_LAYER_PARTS[part]}.{leaf}", tensor
        else:
            raise _unknown(stored)
    elif name not in _UNUSED:
        raise _unknown(stored)


def _unknown(name: str) -> ValueError:
    return ValueError(f"{name} is none of them (a file in transformers' format is given by its folder)")


def _tower(shapes: Mapping[str, tuple[int, ...]], tower: str, activation: str) -> dict[str, Any]:
    prefix = f"{tower}.encoder.layers."
    layers = {name.removeprefix(prefix).partition(".")[0] for name in shapes if name.startswith(prefix)}
    hidden = shapes[f"{prefix}0.mlp.fc1.weight"][0]
    return {"num_hidden_layers": len(layers), "intermediate_size": hidden, "hidden_act": activation}


def _check_known(model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sections of a configuration, of which nothing may be unknown.

    Raises:
        ValueError: something is, or has another type.
    """
    names = ("vision_cfg", "text_cfg") if isinstance(model, dict) else ()
    sections = {"": model, **{name: model.get(name, {}) for name in names}}
    for section, values in sections.items():
        if not isinstance(values, dict):
            raise ValueError(f"{section or 'model_cfg'}: expected an object, got {type(values).__name__}")
        if unknown := sorted(values.keys() - _KNOWN[section]):
            raise ValueError(f"expected a ViT and a text tower of CLIP's own form, got {section} {', '.join(unknown)}")
    if not isinstance(model.get("quick_gelu", False), bool):
        raise ValueError(f"quick_gelu: expected true or false, got {model['quick_gelu']!r}")
    for section, name in (("vision_cfg", "head_width"), ("text_cfg", "heads")):
        value = sections[section].get(name, 1)
        if type(value) is not int or value < 1:
            raise ValueError(f"{section}.{name}: expected a whole number above 0, got {value!r}")
    return sections["vision_cfg"], sections["text_cfg"]


def _check_pixels(preprocessing: Any) -> None:
    """Refuse a normalisation of pixels that is not CLIP's."""
    for name, expected in (("mean", ClipConfig.pixel_mean), ("std", ClipConfig.pixel_std)):
        given = preprocessing.get(name) if isinstance(preprocessing, dict) else None
        if given is not None and given != list(expected):
            raise ValueError(f"preprocess_cfg.{name}: expected CLIP's {list(expected)}, got {reprlib.repr(given)}")
