"""Seconds and memory for decoding hostile image files and ordinary large ones, each in its own process.

    python benchmarks/hostile_files.py                     # this package
    python benchmarks/hostile_files.py --before OLD/src    # and another checkout: up to a minute per file

The files are those of ``tests/hostile_images.py``, which describes each, and three ordinary ones. A process may use 8
GB of address space and 60 seconds. Seconds are processor time; wall seconds also grow with other work on the machine.
Memory is the peak of the whole process, of which Python, numpy and Pillow take 35 MB. Imports are not counted. Linux
only.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

import cliper
from machine import write_report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from hostile_images import FILES, UNCHECKED

SECONDS, ADDRESS_SPACE = 60, 8_000_000_000

DECODE = """
import json, resource, sys, time
from pathlib import Path
from cliper.images import load_image

def peak():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1000

limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
wall, own = time.perf_counter(), time.process_time()
try:
    words = "decoded {}x{}".format(*load_image(sys.argv[1]).size)
except Exception as error:
    words = f"{type(error).__name__}: {error}".replace(sys.argv[1], Path(sys.argv[1]).name)
row = {"seconds": time.process_time() - own, "wall_seconds": time.perf_counter() - wall, "megabytes": peak()}
print(json.dumps({**{name: round(value, 2) for name, value in row.items()}, "outcome": words}))
"""


def saved(size: tuple[int, int], format: str, mode: str = "RGB", **options: Any) -> bytes:
    """A photo enlarged to this size."""
    buffer = io.BytesIO()
    with Image.open(cliper.example_photo()) as photo:
        photo.convert(mode).resize(size).save(buffer, format, **options)
    return buffer.getvalue()


HONEST: dict[str, Callable[[], bytes]] = {
    "phone.jpg (50 megapixels, progressive)": lambda: saved((8160, 6120), "JPEG", progressive=True, quality=95),
    "scan.tif (100 megapixels, grey, LZW)": lambda: saved((10_000, 10_000), "TIFF", "L", compression="tiff_lzw"),
    "panorama.png (48 megapixels)": lambda: saved((24_000, 2000), "PNG", compress_level=1),
}


def decoded(path: Path, source: Path) -> dict[str, Any]:
    """The cost of decoding the file with the package in the folder ``source``."""
    command = [sys.executable, "-W", "ignore", "-c", DECODE, str(path), str(ADDRESS_SPACE)]
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return {"outcome": f"ended after {SECONDS} seconds"}
    if done.returncode:
        return {"outcome": f"the process died: {done.stderr.strip().splitlines()[-1:] or done.returncode}"}
    row: dict[str, Any] = json.loads(done.stdout)
    return row


def main() -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="the folder src of another checkout")
    parser.add_argument("--only", nargs="*", default=(), help="names of files; by default all")
    parser.add_argument("--out", type=Path, help="folder of the report; by default benchmarks/results")
    options = parser.parse_args()
    sources = {"after": Path(cliper.__file__).parents[1]}
    if options.before is not None:
        sources = {"before": options.before.resolve(), **sources}
    report: dict[str, Any] = {"limits": {"seconds": SECONDS, "address_space": ADDRESS_SPACE}}
    with tempfile.TemporaryDirectory() as folder:
        for group, files in (("hostile", FILES), ("hostile, not checked", UNCHECKED), ("honest", HONEST)):
            report[group] = {}
            for name, make in files.items():
                if options.only and name not in options.only:
                    continue
                path = Path(folder) / name.partition(" ")[0]
                path.write_bytes(make())
                row: dict[str, Any] = {"bytes": path.stat().st_size}
                row |= {way: decoded(path, source) for way, source in sources.items()}
                path.unlink()
                report[group][name] = row
                print(name, json.dumps(row), flush=True)
    print(write_report("hostile_files", report, options.out))


if __name__ == "__main__":
    main()
