"""Configuration and weights of a CLIP, read from files in the format of ``transformers`` or OpenCLIP."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cliper.checkpoints.clip_config import ClipConfig
from cliper.checkpoints.families import CONFIGS
from cliper.checkpoints.open_clip import convert_open_clip, read_open_clip_config
from cliper.checkpoints.tensors import iter_tensors
from cliper.checkpoints.validate import is_open_clip, read_json, weight_paths
from cliper.errors import CheckpointError, reraise

if TYPE_CHECKING:
    import torch

__all__ = ["read_clip_config", "read_clip_weights"]


def read_clip_config(folder: Path, activation: str | None = None) -> ClipConfig:
    """The configuration of the CLIP in a folder, or in a weight file of OpenCLIP or OpenAI.

    Args:
        folder: accepted by :func:`cliper.checkpoints.check_folder`.
        activation: as for :func:`.read_open_clip_config`; only for such weights.

    Raises:
        CheckpointError: ``config.json`` is missing, cannot be read, or describes no CLIP; or as
            :func:`.read_open_clip_config`.
    """
    if is_open_clip(folder):
        return read_open_clip_config(folder, activation)
    if activation is not None:
        raise CheckpointError(f"{folder}: expected no activation beside that of config.json, got {activation}")
    data = read_json(folder / "config.json", "it describes the model")
    with reraise(ValueError, CheckpointError, f"{folder}: could not read the weights: config.json"):
        return CONFIGS.get(str(data.get("model_type")), ClipConfig).from_dict(data)


def read_clip_weights(
    folder: Path, config: ClipConfig, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The weights of the CLIP in a folder, and how they differ from its configuration: one line each.

    Args:
        folder: accepted by :func:`cliper.checkpoints.check_folder`.
        config: of the folder.
        device, dtype: of the result; None leaves them as they are in the files.

    Returns:
        The tensors by name, complete if there are no problems, and the problems.

    Raises:
        CheckpointError: a file that cannot be read, or a configuration that describes far more weights than the files
            hold.
    """
    from cliper.pretrained import list_problems

    shapes, paths = config.shapes(), weight_paths(folder, "clip")
    described, size = sum(map(math.prod, shapes.values())), sum(path.stat().st_size for path in paths)
    if described > size:
        raise CheckpointError(
            f"{folder}: could not read the weights: config.json describes {described:,} weights, "
            f"the files have {size:,} bytes"
        )
    tensors: dict[str, torch.Tensor] = {}
    mismatched = []
    further: set[str] = set()  # names of layers that the configuration does not have
    for path in paths:
        for name, tensor in _iter_weights(path, config, is_open_clip(folder)):
            if name in shapes and tensor.shape != shapes[name]:
                mismatched.append((name, tensor.shape, shapes[name]))
            elif name in shapes and not tensor.is_floating_point():
                kind = str(tensor.dtype).removeprefix("torch.")
                raise CheckpointError(
                    f"{path}: {name}: expected floating-point numbers, got {kind}; give float16 or float32"
                )
            elif name in shapes:
                tensors[name] = tensor.detach().to(device=device, dtype=dtype)
            elif re.sub(r"\.\d+\.", ".0.", name) in shapes:
                further.add(name)
    missing = shapes.keys() - tensors.keys() - {name for name, _, _ in mismatched}
    problems = list_problems(mismatched, missing)
    if further:
        problems.append(f"the files have more layers than config.json, such as {min(further)}")
    return tensors, problems


def _iter_weights(path: Path, config: ClipConfig, open_clip: bool) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a file, with the names of :meth:`.ClipConfig.shapes`."""
    for stored, tensor in iter_tensors(path):
        expected = f"{path}: {stored}: expected a weight of {type(config).__name__}"
        with reraise((LookupError, RuntimeError, ValueError), CheckpointError, expected):
            converted = list(convert_open_clip(stored, tensor) if open_clip else config.convert(stored, tensor))
        yield from converted
