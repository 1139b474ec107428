"""The switch that turns all kernels off."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

from torch import Tensor

__all__ = ["disable_kernels", "enabled_by_environment", "kernels_enabled", "use_cpu_kernels"]

_disabled = ContextVar("cliper_kernels_disabled", default=False)


def kernels_enabled() -> bool:
    """Whether kernels may be used: not with ``CLIPER_KERNELS=0``, and not within :func:`disable_kernels`."""
    return not _disabled.get() and enabled_by_environment()


@contextmanager
def disable_kernels() -> Iterator[None]:
    """Use PyTorch's own operators in the block, for models that are loaded and traced in it to be exported."""
    token = _disabled.set(True)
    try:
        yield
    finally:
        _disabled.reset(token)


def use_cpu_kernels(x: Tensor) -> bool:
    """Whether ``x`` is on the CPU and kernels are enabled.

    Then attention heads are computed in blocks that stay in the cache. Otherwise all heads are computed at once, which
    keeps a GPU busy.
    """
    return x.device.type == "cpu" and kernels_enabled()


@cache
def enabled_by_environment() -> bool:
    """Whether the environment variable leaves kernels enabled; read once, at first use."""
    return os.environ.get("CLIPER_KERNELS", "").strip() != "0"
