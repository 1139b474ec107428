"""What a result was computed with: versions, machine, and checksums of the weights."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["checkpoint_record", "machine", "versions"]

_PACKAGES = ("cliper", "torch", "transformers", "diffusers", "numpy", "pillow")


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that numbers depend on; None for one that is not installed."""
    return {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}}


def machine() -> dict[str, Any]:
    """Processor, number of processors, memory, system, and PyTorch's threads and devices."""
    import torch

    return {
        "processor": _processor(),
        "processors": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def checkpoint_record(name: str, refiner: bool = False, kind: str = "clip") -> dict[str, Any] | None:
    """Where the weights of a model, or of a refiner, came from, and their checksums; None for a refiner without any.

    Args:
        name: of the model.
        refiner: whether it is a refiner.
        kind: of another model, as for :func:`cliper.checkpoints.resolve`.

    Raises:
        CheckpointError: there is no such checkpoint.
    """
    from cliper.checkpoints import resolve, weight_hashes
    from cliper.refiners import refiner_checkpoint

    found = refiner_checkpoint(name) if refiner else resolve(name, kind)
    if found is None:
        return None
    return {
        "name": found.name,
        "source": found.source,
        "repo": found.repo,
        "revision": found.revision,
        "sha256": weight_hashes(found),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError):  # a system that does not tell
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
