"""What a measurement was taken on, and how it is written down."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "peak_growth", "provenance", "write_report"]

RESULTS = Path(__file__).parent / "results"


def peak_growth(run: Callable[[], object]) -> int:
    """Bytes by which resident memory at its peak within ``run`` exceeds what the process held before (Linux)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed, but not yet given back, is nobody's
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def provenance() -> dict[str, Any]:
    """Date, commit, versions and machine."""
    import torch

    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": _commit(),
        "versions": {
            name: _version(name) for name in ("cliper", "torch", "transformers", "diffusers", "numpy", "pillow")
        },
        "machine": {
            "processor": _processor(),
            "processors": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "system": platform.system(),
            "python": platform.python_version(),
            "torch_threads": torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def write_report(name: str, report: dict[str, Any], folder: Path | None = None) -> Path:
    """Write ``NAME.json`` with the report and where it comes from."""
    path = (folder or RESULTS) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**report, "provenance": provenance()}, indent=1) + "\n", encoding="utf-8")
    return path


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
