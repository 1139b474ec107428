"""Read weight files tensor by tensor."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliper.checkpoints.torchscript import is_torchscript, iter_torchscript
from cliper.errors import CheckpointError, short_reason

if TYPE_CHECKING:
    import torch

__all__ = ["iter_tensors"]


def iter_tensors(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of one weight file, one at a time; safetensors, PyTorch's zip files and TorchScript archives are
    memory-mapped.

    Raises:
        CheckpointError: the file cannot be read, is truncated, or holds more than tensors.
    """
    try:
        for name, tensor in _read(path):
            if not isinstance(name, str):
                raise ValueError(f"expected names of tensors, got {name!r:.80}")
            if tensor.device.type != "cpu" or str(tensor.layout) != "torch.strided" or tensor.is_quantized:
                raise ValueError(f"{name}: expected a dense tensor, got a sparse, quantized or empty one")
            yield name, tensor
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
    if is_torchscript(path):
        yield from iter_torchscript(path)
        return
    if start.startswith(b"PK"):
        with zipfile.ZipFile(path) as archive:
            # PyTorch writes none, and would unpack gigabytes from a small file.
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise ValueError("expected uncompressed entries")
    # weights_only: a pickle from the network must not run code.
    loaded: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=start.startswith(b"PK"))
    tensors = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(tensors, dict):
        raise ValueError(f"expected tensors by name, got {type(tensors).__name__}")
    for name, value in tensors.items():
        if isinstance(value, torch.Tensor):
            yield name, value
