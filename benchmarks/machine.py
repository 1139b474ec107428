"""The machine and versions of a measurement, and the files of reports."""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cliper.provenance import machine, versions

__all__ = ["RESULTS", "peak_growth", "provenance", "write_report"]

RESULTS = Path(__file__).parent / "results"


def peak_growth(run: Callable[[], object]) -> int:
    """Bytes by which resident memory at its peak within ``run`` exceeds what the process held before (Linux)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # return freed memory to the system
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
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
    return {"date": time.strftime("%Y-%m-%d"), "commit": _commit(), "versions": versions(), "machine": machine()}


def write_report(name: str, report: dict[str, Any], folder: Path | None = None) -> Path:
    """Write ``NAME.json`` with the report and its provenance."""
    path = (folder or RESULTS) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**report, "provenance": provenance()}, indent=1) + "\n", encoding="utf-8")
    return path


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
