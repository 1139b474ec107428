"""Run image tower and formulas on a fake GPU; see ``test_gpu``.

    python tests/run_on_fake_gpu.py CLIP_FOLDER

The device holds no values. An operation on tensors of two devices is an error there, as on a GPU.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from cliper.checkpoints.clip import read_clip_config, read_clip_weights
from cliper.encoders.vision import VisionTower
from cliper.ops import (
    TileBlender,
    average_views,
    build_text_classifier,
    class_maps,
    class_probabilities,
    temporal_mean,
    unchanged_weights,
)
from cliper.ops.compensation import QueryKey, compensate_query_key
from cliper.ops.recipes import RECIPES

DEVICE = torch.device("privateuseone", 0)
VIEWS: tuple[dict[str, Any], ...] = (
    {},
    {"window": 112},
    {"window": 112, "window_context": True},
    {"whole_image": True},
)


def check_detection() -> None:
    """Tensors of two devices are noticed."""
    for operation in (torch.add, torch.matmul, torch.nn.functional.linear):
        with pytest.raises(RuntimeError, match="same device"):
            operation(torch.empty(3, 3, device=DEVICE), torch.ones(3, 3))


def check_image_tower(folder: Path) -> None:
    """Every recipe, attention and kind of windows, in float32 and float16."""
    config = read_clip_config(folder)
    for dtype in (torch.float32, torch.float16):
        shapes, _ = read_clip_weights(folder, config, torch.device("cpu"), dtype)
        with FakeTensorMode():
            weights = {name: torch.empty(one.shape, dtype=dtype, device=DEVICE) for name, one in shapes.items()}
            tower, pixels = VisionTower(config.vision, weights), torch.empty(2, 3, 160, 208, device=DEVICE)
            for recipe, attention, view in itertools.product(RECIPES.values(), ("fused", "vanilla"), VIEWS):
                for found in tower.encode(pixels, recipe=recipe, attention=attention, layers=range(3), **view):
                    check([found.embeddings, found.affinity, found.window_embeddings, found.image_embedding])
            check([tower.patch_features(pixels[:1], -1)])


def check_formulas() -> None:
    """Those that compute with an image's tensors; images come from the CPU."""
    texts = build_text_classifier(on_gpu(3, 16), on_gpu(2, 16))
    options: dict[str, Any] = {
        "logit_scale": 30.0,
        "map_threshold": 0.4,
        "selected": -1,
        "recipe": RECIPES["conference"],
    }
    layer = QueryKey(on_gpu(2, 64, 8), on_gpu(2, 64, 8), 0.35)
    blender = TileBlender(3, (8, 8), DEVICE)
    blender.add(on_gpu(3, 5, 5), 2, 2, (6, 6))
    check([texts, blender.blended()])
    check([class_probabilities(on_gpu(12, 16), texts, 30.0, 3)])
    check([class_maps(on_gpu(3, 12, 16), on_gpu(12, 12), texts, 3, **options)])
    check([average_views([on_gpu(3, 3, 4), on_gpu(3, 6, 8)], (False, False))])
    check([unchanged_weights(on_gpu(3, 8, 8), on_gpu(3, 8, 8), (2, 2))])
    check(temporal_mean(on_gpu(3, 2, 2), on_gpu(3, 2, 2), on_gpu(2, 2), on_gpu(2, 2), 8))
    for mode in ("chain", "mean", "selected"):
        check([compensate_query_key(on_gpu(3, 4, 4), [layer], 0.4, mode, 0, size=(8, 8))])


def on_gpu(*shape: int) -> Tensor:
    """Without values."""
    return torch.empty(shape, device=DEVICE)


def check(tensors: Any) -> None:
    """That all of them are on the device."""
    assert {one.device for one in tensors if one is not None} == {DEVICE}


def main() -> None:
    """All checks."""
    _setup_privateuseone_for_python_backend()
    check_image_tower(Path(sys.argv[1]))
    with FakeTensorMode():
        check_detection()
        check_formulas()
    print("all on the device")


if __name__ == "__main__":
    main()
