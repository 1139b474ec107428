"""The switch that turns all kernels off."""

import os
from functools import cache

from torch import Tensor

__all__ = ["kernels_enabled", "use_cpu_kernels"]


@cache
def kernels_enabled() -> bool:
    """Whether kernels may be used: not if the environment variable ``CLIPER_KERNELS`` is 0. Read once, at first use."""
    return os.environ.get("CLIPER_KERNELS", "").strip() != "0"


def use_cpu_kernels(x: Tensor) -> bool:
    """Whether ``x`` is on the CPU and kernels are enabled.

    Then attention heads are computed in blocks that stay in the cache. Otherwise all heads are computed at once, which
    keeps a GPU busy.
    """
    return x.device.type == "cpu" and kernels_enabled()
