"""Read weight files tensor by tensor, and compare names and shapes with those that a model expects."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliper.errors import CheckpointError, reraise, short_reason

if TYPE_CHECKING:
    import torch

__all__ = ["canonical_tensor_name", "compare", "expected_shapes", "iter_tensors"]

_LONG = {"q": "query", "k": "key", "v": "value"}

# Names differ between releases of transformers and diffusers.
_RENAMES = (
    # the base model's prefix, which some checkpoints have
    (r"^(vit|dinov2|text_model)\.(?=embeddings|encoder|layers|layernorm|final_layer_norm|pooler)", ""),
    (r"^encoder\.layers?\.", "layers."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attention.\1."),
    (r"\.attention\.(q|k|v)_proj\.", lambda match: f".attention.{_LONG[match[1]]}."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(?<=\d)\.output\.dense\.", ".mlp.fc2."),
    # the VAE's attention before diffusers 0.12
    (r"(attentions\.\d+)\.query\.", r"\1.to_q."),
    (r"(attentions\.\d+)\.key\.", r"\1.to_k."),
    (r"(attentions\.\d+)\.value\.", r"\1.to_v."),
    (r"(attentions\.\d+)\.proj_attn\.", r"\1.to_out.0."),
)
# In the model and only read by a head.
_OPTIONAL = r"pooler\..*"
# In some checkpoints and not used here: position ids, heads for other tasks.
_UNUSED = r"(.*\.)?position_ids|pooler\..*|classifier\..*|text_projection\.weight"


def canonical_tensor_name(name: str) -> str:
    """A tensor's name in one form for all releases that write it.

    Example:
        >>> canonical_tensor_name("vit.encoder.layer.0.attention.attention.query.bias")
        'layers.0.attention.query.bias'
        >>> canonical_tensor_name("layers.0.attention.q_proj.bias")
        'layers.0.attention.query.bias'
    """
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def iter_tensors(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of one weight file, one at a time; safetensors and PyTorch's zip files are memory-mapped.

    Raises:
        CheckpointError: the file cannot be read, is truncated, or holds more than tensors.
    """
    try:
        yield from _read(path)
    except MemoryError:
        raise
    except Exception as error:  # every reader has its own
        reason = short_reason(error)
        raise CheckpointError(f"{path}: the weights cannot be read: {reason}; download it again") from None


def _read(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    import torch
    from safetensors import safe_open

    with path.open("rb") as file:
        start = file.read(23)
    if start == b"version https://git-lfs":
        raise ValueError("a Git LFS pointer to them; run `git lfs pull`")
    if path.suffix == ".safetensors":
        with safe_open(str(path), framework="pt") as stream:
            for name in stream.keys():  # noqa: SIM118 (it is not a mapping)
                yield name, stream.get_tensor(name)
        return
    # weights_only: a pickle from the network must not run code.
    loaded: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=start.startswith(b"PK"))
    for name, value in loaded.get("state_dict", loaded).items():
        if isinstance(value, torch.Tensor):
            yield name, value


def expected_shapes(folder: Path, part: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a model, from its ``config.json`` alone, without memory for its weights.

    Args:
        folder: of the checkpoint.
        part: folder inside a pipeline (``"unet"``, ``"vae"``, ``"text_encoder"``); empty otherwise.

    Raises:
        CheckpointError: the configuration makes no model.
    """
    import torch
    import transformers

    path = str(folder / part)
    model: torch.nn.Module
    # Every library raises its own for a configuration that it cannot use.
    with reraise(Exception, CheckpointError, f"{path}/config.json: makes no model"), torch.device("meta"):
        if part in ("unet", "vae"):
            import diffusers

            cls = diffusers.UNet2DConditionModel if part == "unet" else diffusers.AutoencoderKL
            model = cls.from_config(cls.load_config(path))
        elif part == "text_encoder":
            config = transformers.CLIPTextConfig.from_pretrained(path, local_files_only=True)
            model = transformers.CLIPTextModel(config)
        else:
            config = transformers.AutoConfig.from_pretrained(path, local_files_only=True)
            model = transformers.AutoModel.from_config(config)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def compare(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Differences between the shapes of two sets of tensors, a line for each.

    Example:
        >>> compare({"a": (2,), "b": (1,)}, {"a": (3,), "position_ids": (1, 77)})
        ['a: expected shape [2], got [3]', '1 tensor is missing: b']
    """
    want = {canonical_tensor_name(name): name for name in expected}
    have = {canonical_tensor_name(name): name for name in found}
    problems = [
        f"{have[key]}: expected shape {list(expected[name])}, got {list(found[have[key]])}"
        for key, name in want.items()
        if key in have and found[have[key]] != expected[name]
    ]
    absent = [name for key, name in want.items() if key not in have and not re.fullmatch(_OPTIONAL, key)]
    extra = [name for key, name in have.items() if key not in want and not re.fullmatch(_UNUSED, key)]
    for names, what in ((absent, "missing"), (extra, "not expected")):
        if names:
            count = "1 tensor is" if len(names) == 1 else f"{len(names)} tensors are"
            problems.append(f"{count} {what}: {', '.join(sorted(names)[:3])}{', ...' if len(names) > 3 else ''}")
    return problems
