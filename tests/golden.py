"""The golden files of ``tests/data``: inputs and outputs of the published implementation. See the README there."""

from __future__ import annotations

import hashlib
import json
import lzma
import math
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor

DATA = Path(__file__).parent / "data"


def load_golden(name: str) -> dict[str, Tensor]:
    """The tensors of ``tests/data/<name>.safetensors.xz``."""
    return load(lzma.decompress((DATA / f"{name}.safetensors.xz").read_bytes()))


def save_golden_clip(patch: int, folder: Path) -> Path:
    """Write the tiny CLIP with patches of 14 or 16 pixels in ``transformers`` format, and return its folder.

    Only the image tower is that of the published implementation's run: the golden values begin with text embeddings,
    so the text tower has new random weights.
    """
    from transformers import CLIPConfig, CLIPModel

    source = DATA / f"clip-patch{patch}"
    model = CLIPModel(CLIPConfig(**json.loads((source / "config.json").read_text(encoding="utf-8"))))
    missing, unexpected = model.load_state_dict(image_tower(patch), strict=False)
    assert not unexpected
    assert all(name.startswith("text_") or name == "logit_scale" for name in missing)
    model.save_pretrained(folder)
    shutil.copy(source / "config.json", folder)
    return folder


def image_tower(patch: int) -> dict[str, Tensor]:
    """The weights of the image tower: the stored ones, and the large matrices drawn again from their seed.

    ``torch.nn`` drew those matrices uniformly. Its generator is the Mersenne twister, which NumPy guarantees not to
    change, and a float32 has 24 random bits, so they come out bit for bit on every platform.
    """
    state = load_golden(f"clip-patch{patch}/model")
    width = state["vision_model.embeddings.class_embedding"].numel()
    layers = sum(name.endswith("layer_norm1.weight") for name in state)
    hidden = state["vision_model.encoder.layers.0.mlp.fc1.bias"].numel()
    bits = np.frombuffer(np.random.RandomState(3).bytes(4 * 1_200_000), "<u4") & (2**24 - 1)
    position = 0

    def draw(name: str, *shape: int, bound: float, gain: float = 1.0) -> None:
        nonlocal position
        count = math.prod(shape)
        low, high = np.float32(-bound), np.float32(bound)
        # Multiplied and added with one rounding, as torch does it.
        values = bits[position : position + count] * 2.0**-24 * float(high - low) + float(low)
        state[name] = torch.from_numpy((values.astype(np.float32) * np.float32(gain)).reshape(shape))
        position += count

    pixels = 3 * patch**2
    draw("vision_model.embeddings.patch_embedding.weight", width, 3, patch, patch, bound=pixels**-0.5)
    # Numbers that went into stored tensors are passed over: class and position embedding, then the biases.
    position += width + state["vision_model.embeddings.position_embedding.weight"].numel()
    for layer in range(layers):
        prefix = f"vision_model.encoder.layers.{layer}"
        draw(f"{prefix}.self_attn.out_proj.weight", width, width, bound=width**-0.5)
        position += width
        for part in "qkv":  # one matrix in torch; scaled so that the attention is far from uniform
            name = f"{prefix}.self_attn.{part}_proj.weight"
            draw(name, width, width, bound=(6 / (4 * width)) ** 0.5, gain=3)
        draw(f"{prefix}.mlp.fc1.weight", hidden, width, bound=width**-0.5)
        position += hidden
        draw(f"{prefix}.mlp.fc2.weight", width, hidden, bound=hidden**-0.5)
        position += width
    return state


def digest(state: dict[str, Tensor]) -> str:
    """SHA-256 over the names and bytes of tensors, in the order of their names."""
    total = hashlib.sha256()
    for name in sorted(state):
        total.update(name.encode() + state[name].contiguous().numpy().tobytes())
    return total.hexdigest()
