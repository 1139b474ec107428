"""Device and dtype by name, out-of-memory errors of several libraries as one, and TF32."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from cliper.errors import ResourceError, SettingsError

__all__ = ["convert_out_of_memory", "peak_memory", "resolve_device", "resolve_dtype", "tf32_disabled", "use_one_core"]


def resolve_device(name: str | torch.device | None) -> torch.device:
    """The named device. None selects a CUDA device if there is one, else the CPU.

    Raises:
        SettingsError: this machine does not have the device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()  # fails on the device "meta", which holds no values
    except (RuntimeError, AssertionError, NotImplementedError):
        known = ["cpu", *(["cuda"] * torch.cuda.is_available()), *(["mps"] * torch.backends.mps.is_available())]
        hint = "; an NVIDIA or AMD GPU is called cuda" if str(name).lower().startswith("gpu") else ""
        raise SettingsError(f"device: expected one of {', '.join(known)}, got {str(name)!r}{hint}") from None
    return device


def resolve_dtype(name: str | torch.dtype | None) -> torch.dtype:
    """The named floating-point type. None selects float32.

    Raises:
        SettingsError: the name is not ``float32``, ``float16`` or ``bfloat16``.
    """
    known = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if name is None:
        return torch.float32
    key = str(name).removeprefix("torch.")
    if key not in known:
        raise SettingsError(f"dtype: expected one of {', '.join(known)}, got {str(name)!r}")
    return known[key]


@contextmanager
def convert_out_of_memory(
    what: str = "segmenting", advice: str = "lower size, use a smaller image or model, or a device with more memory"
) -> Iterator[None]:
    """Replace the exceptions by which Python and PyTorch report that memory ran out by ``ResourceError``.

    Args:
        what: the operation, for the message.
        advice: what to do, for the message.

    Raises:
        ResourceError: memory ran out in the block.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # The CPU's and Apple's allocators, the CUDA driver, cuBLAS and cuDNN have no exceptions of their own.
        texts = ("can't allocate memory", "not enough memory", "out of memory", "STATUS_ALLOC_FAILED")
        by_text = any(text in str(error) for text in texts)
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not by_text:
            raise
        raise ResourceError(f"{what}: out of memory; {advice}") from error


@contextmanager
def tf32_disabled() -> Iterator[None]:
    """Compute float32 matrix products and convolutions in float32, not in TF32; restore the settings afterwards.

    TF32 keeps 10 bits of the mantissa. By default PyTorch allows it for convolutions on recent GPUs. The settings are
    of the whole process, all threads.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html, "TensorFloat-32 (TF32)".
    """
    backends: Any = torch.backends  # its annotations lack some of these
    operations = (backends.cuda.matmul, backends.mkldnn.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    before = [operation.fp32_precision for operation in operations]

    def assign(values: list[str]) -> None:
        # The older settings first: reading them is an error where they contradict the newer ones.
        reduced = "medium" if values[1] == "bf16" else "high"
        torch.set_float32_matmul_precision(reduced if {"tf32", "bf16"} & set(values[:2]) else "highest")
        backends.cudnn.allow_tf32 = values[2] == "tf32"
        for operation, value in zip(operations, values, strict=True):
            operation.fp32_precision = value

    assign(["ieee"] * len(operations))
    try:
        yield
    finally:
        assign(before)


def peak_memory() -> dict[str, int]:
    """The most bytes that this process has held until now, and its GPU's allocator if there is one."""
    peak: dict[str, int] = {}
    # On Linux not from getrusage: its value survives exec, and is the parent's where that is larger.
    if sys.platform == "linux" and (found := re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())):
        peak["resident"] = int(found[1]) * 1024
    elif sys.platform != "win32":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
        peak["resident"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if torch.cuda.is_available():
        peak["cuda"] = max(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count())))
    return peak


def use_one_core() -> None:
    """Let PyTorch's operations of this thread use one core."""
    torch.get_num_threads()  # a thread's first read of the number overwrites what was set before
    torch.set_num_threads(1)
