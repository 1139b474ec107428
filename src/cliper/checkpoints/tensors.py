"""Read weight files tensor by tensor."""

from __future__ import annotations

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
    if is_torchscript(path):
        yield from iter_torchscript(path)
        return
    # weights_only: a pickle from the network must not run code.
    loaded: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=start.startswith(b"PK"))
    for name, value in loaded.get("state_dict", loaded).items():
        if isinstance(value, torch.Tensor):
            yield name, value
