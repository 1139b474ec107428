"""Images per second of ``cliper evaluate`` with one and two workers, and how long the model waits for images.

    python benchmarks/evaluation_throughput.py --data ROOT [--limit 60] [--rounds 3]

ROOT holds VOCdevkit. Rates are those of the model's and the waiting seconds that the report states, so without starting
and loading; of several workers the seconds are summed, and the rate is multiplied by their number.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import RESULTS, write_report


def run(data: Path, limit: int, workers: int) -> dict[str, Any]:
    """The report of one run."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cliper", "evaluate", "voc21", "--data", str(data), "--limit", str(limit)]
        command += ["--workers", str(workers), "--out", f"{folder}/out"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        report: dict[str, Any] = json.loads(Path(folder, "out", "report.json").read_text())
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds VOCdevkit")
    parser.add_argument("--limit", type=int, default=60, help="number of images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the report")
    options = parser.parse_args()
    rates: dict[int, list[float]] = {1: [], 2: []}
    idle: dict[int, list[float]] = {1: [], 2: []}
    matrices = set()
    for _ in range(options.rounds):
        for workers in rates:
            found = run(options.data, options.limit, workers)
            seconds = found["this_run"]["model_seconds"] + found["this_run"]["waiting_seconds"]
            rates[workers].append(workers * found["images"] / seconds)
            idle[workers].append(found["this_run"]["model_idle_share"])
            matrices.add(json.dumps(found["matrix"]))
    report: dict[str, Any] = {
        "what": __doc__,
        "images": options.limit,
        "images_per_second": {f"{n} workers": [round(rate, 3) for rate in rates[n]] for n in rates},
        "model_idle_share": {f"{n} workers": round(statistics.median(idle[n]), 4) for n in idle},
        "same_matrix": len(matrices) == 1,
    }
    print(json.dumps({key: report[key] for key in ("images_per_second", "model_idle_share", "same_matrix")}))
    print(f"wrote {write_report('evaluation_throughput', report, options.out)}")


if __name__ == "__main__":
    main()
