"""Time of ``cliper segment PHOTO -c "horse; grass"`` from start to exit of its process, of two revisions in one run.

    git worktree add ../old d063567
    python benchmarks/start_up.py --baseline ../old/src

The revisions alternate. Before the measured runs each has one that fills its cache of text embeddings; ``--cold``
measures without that cache. ``import torch`` in a process of its own is the time that nothing here can save.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cliper
from machine import RESULTS, write_report

SOURCE = Path(__file__).parents[1] / "src"
CLASSES = "horse; grass"
# Prints the libraries that the command imported.
IMPORTS = """
import io, sys
from cliper.cli.main import run
out, sys.stdout = sys.stdout, io.StringIO()
run(sys.argv[1:])
print(*sorted({name.partition(".")[0] for name in sys.modules}), file=out)
"""
LIBRARIES = ("PIL", "diffusers", "huggingface_hub", "numpy", "rich", "safetensors", "scipy", "tokenizers", "torch")
LIBRARIES += ("transformers", "yaml")


def run(source: Path, folder: Path, threads: int, *command: str) -> tuple[float, float | None, str]:
    """Run Python; seconds until its exit, seconds until its first line on standard error, and its output."""
    surroundings = {"PYTHONPATH": str(source.resolve()), "CLIPER_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    surroundings["OMP_NUM_THREADS"] = str(threads)
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**{k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}, **surroundings},
    )
    started = time.perf_counter()
    assert process.stderr is not None
    first = time.perf_counter() - started if process.stderr.readline() else None
    out, errors = process.communicate()
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{command}: exit code {process.returncode}: {errors}")
    return seconds, first, out


def summary(values: list[float]) -> dict[str, Any]:
    """Median, least and all."""
    return {"median": statistics.median(values), "min": min(values), "all": [round(value, 3) for value in values]}


def measure(options: argparse.Namespace, home: Path) -> dict[str, Any]:
    """Seconds of each revision and of importing torch, their ratio, and what each imports."""
    sources = {"cliper": SOURCE, **({"baseline": options.baseline} if options.baseline else {})}
    seconds: dict[str, list[float]] = {name: [] for name in (*sources, "import torch")}
    first_line: list[float] = []
    imports: dict[str, list[str]] = {}
    segment = ("segment", str(cliper.example_photo()), "-c", CLASSES, "-o", "out")
    for name, source in sources.items():
        (home / name).mkdir()
        _, _, out = run(source, home / name, options.threads, "-c", IMPORTS, *segment)
        imports[name] = sorted({*out.split()} & {*LIBRARIES})
    for _ in range(options.repeats):
        for name, source in sources.items():
            if options.cold:
                for file in (home / name / "cache").glob("*"):
                    file.unlink()
            total, first, _ = run(source, home / name, options.threads, "-m", "cliper", *segment)
            seconds[name].append(total)
            if name == "cliper" and first is not None:
                first_line.append(first)
        seconds["import torch"].append(run(SOURCE, home, options.threads, "-c", "import torch")[0])
    report: dict[str, Any] = {
        "command": f'cliper segment PHOTO -c "{CLASSES}"',
        "settings": {"threads": options.threads, "repeats": options.repeats, "cold": options.cold},
        "shared_machine": options.shared,
        "seconds": {name: summary(values) for name, values in seconds.items()},
        "first_line_seconds": summary(first_line),
        "imports": imports,
    }
    if options.baseline:
        pairs = [own / old for own, old in zip(seconds["cliper"], seconds["baseline"], strict=True)]
        report["ratio"] = summary(pairs)
    return report


def main() -> None:
    """Measure and write ``results/start_up.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", type=Path, help="source folder of another revision")
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cold", action="store_true", help="without cached text embeddings")
    parser.add_argument("--shared", action="store_true", help="record that other work ran on the machine")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the report")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = measure(options, Path(folder))
    for name, found in {**report["seconds"], "first line": report["first_line_seconds"]}.items():
        print(f"{name:13} median {found['median']:.2f} s, least {found['min']:.2f} s")
    if "ratio" in report:
        print(f"cliper / baseline, pair by pair: median {report['ratio']['median']:.2f}")
    name = "start_up_cold" if options.cold else "start_up"
    print(f"wrote {write_report(name, report, options.out)}")


if __name__ == "__main__":
    main()
