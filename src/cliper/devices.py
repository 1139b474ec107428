"""Which device and number format to compute in, and what happens when memory runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cliper.errors import ResourceError, SettingsError

__all__ = ["memory_errors", "pick_device", "pick_dtype"]


def pick_device(name: str | torch.device | None) -> torch.device:
    """The named device; a CUDA device if there is one, else the CPU, for None.

    Raises:
        SettingsError: a device that this machine does not have.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(name)
        torch.zeros(1, device=place).cpu()  # the device "meta" holds nothing
    except (RuntimeError, AssertionError, NotImplementedError):
        raise SettingsError(f"device: expected one that this machine has, such as cpu, got {str(name)!r}") from None
    return place


def pick_dtype(name: str | torch.dtype | None) -> torch.dtype:
    """The named floating-point type; float32 for None.

    Raises:
        SettingsError: another name.
    """
    known = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if name is None:
        return torch.float32
    key = str(name).removeprefix("torch.")
    if key not in known:
        raise SettingsError(f"dtype: expected one of {', '.join(known)}, got {str(name)!r}")
    return known[key]


@contextmanager
def memory_errors(
    what: str = "segmenting", advice: str = "lower size, use a smaller picture or model, or a device with more memory"
) -> Iterator[None]:
    """Turn the several ways of running out of memory into one error.

    Args:
        what: what was being done, for the message.
        advice: what to lower.

    Raises:
        ResourceError: memory ran out inside.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # The CPU's allocator has no exception of its own.
        said = any(words in str(error) for words in ("can't allocate memory", "not enough memory"))
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not said:
            raise
        raise ResourceError(f"{what}: out of memory; {advice}") from error
