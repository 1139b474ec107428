"""CPU kernels: the same results as PyTorch's operators up to rounding, in less time and memory.

One entry, :func:`optimize_for_cpu`, prepares a model. The environment variable ``CLIPER_KERNELS=0`` turns every kernel
off: then only plain PyTorch operators run. PyTorch's private operators are called in this package only.
"""

from cliper.kernels.model import optimize_for_cpu
from cliper.kernels.switch import kernels_enabled

__all__ = ["kernels_enabled", "optimize_for_cpu"]
