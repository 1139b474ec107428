"""Images per second of ``cliper batch`` and of a plain loop over ``segmenter(...)``; processors and memory used.

    python benchmarks/batch_throughput.py VOCdevkit/VOC2012/JPEGImages              # 2,000 images, some 20 minutes
    python benchmarks/batch_throughput.py VOCdevkit/VOC2012/JPEGImages --limit 40   # a quick check

The images are repeated under other names, as links: 2,000 for batch, 500 for the plain loops, whose rate is constant.
All ways use the bundled checkpoint and run one after the other, each in its own process:

- loop: ``segmenter(path, classes)``, without writing files
- loop with files: the same, with label map and overlay saved, as in batch
- local, ray: ``cliper batch``, label map and overlay

Rates count from the first tenth of the images on, without loading; start is the time until then minus the time of those
images. Memory is that of all processes of a run, with shared memory counted once.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import RESULTS, write_report

CLASSES = "person; dog; cat; car; bird; horse; sheep; boat; bus; train"

LOOP = """
import sys
from pathlib import Path
import cliper
folder, out, log, write = Path(sys.argv[1]), Path(sys.argv[2]), open(sys.argv[3], "a"), sys.argv[4] == "files"
segmenter = cliper.Segmenter.from_pretrained()
segmenter = segmenter.with_settings(segmenter.settings.replace(size=int(sys.argv[6])))
for path in sorted(folder.iterdir()):
    result = segmenter(path, sys.argv[5])
    if write:
        result.save(out / f"{path.stem}.labels.png")
        result.save_overlay(out / f"{path.stem}.overlay.png")
    print(path.name, file=log, flush=True)
"""


@dataclass(frozen=True)
class Sample:
    """The state of a run at one time.

    Args:
        seconds: since its start.
        images: finished so far.
        processor: seconds of processor time of all its processes.
        memory: bytes.
    """

    seconds: float
    images: int
    processor: float
    memory: int


def ways(folder: Path, out: Path, size: int) -> dict[str, tuple[list[str], Path]]:
    """Command of each way, and the file to which it writes a line for each image."""
    log = out / "log"
    loop = [sys.executable, "-c", LOOP, str(folder), str(out), str(log)]
    batch = [sys.executable, "-m", "cliper", "batch", str(folder), "-c", CLASSES, "--size", str(size)]
    batch += ["-o", str(out / "run")]
    manifest = out / "run" / "manifest.jsonl"
    return {
        "loop": ([*loop, "nothing", CLASSES, str(size)], log),
        "loop with files": ([*loop, "files", CLASSES, str(size)], log),
        "local": (batch, manifest),
        "ray": ([*batch, "--engine", "ray"], manifest),
    }


def link_images(source: Path, folder: Path, count: int) -> None:
    """Link ``count`` images to ``folder``, repeating those of ``source``."""
    images = sorted(path for path in source.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not images:
        raise SystemExit(f"expected images in {source}, got none")
    for number, path in enumerate(itertools.islice(itertools.cycle(images), count)):
        (folder / f"{number:06d}{path.suffix}").symlink_to(path.resolve())


def watch(command: list[str], log: Path) -> list[Sample]:
    """Run a command and sample it every second and at its end."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    samples: list[Sample] = []
    spent: dict[int, float] = {}
    offset, lines = 0, 0
    while True:
        running = process.poll() is None
        if log.exists():
            with log.open("rb") as stream:
                stream.seek(offset)
                new = stream.read()
            offset += len(new)
            lines += new.count(b"\n")
        if running:
            tree = processes(process.pid)
            spent.update({one: seconds for one in tree if (seconds := processor_seconds(one)) is not None})
            memory = sum(proportional_memory(one) for one in tree)
            samples.append(Sample(time.perf_counter() - began, lines, sum(spent.values()), memory))
        else:
            if process.returncode:
                raise SystemExit(f"{' '.join(command[:5])} ... ended with exit code {process.returncode}")
            return samples
        time.sleep(1)  # reading the memory of many processes takes time of its own


def processes(first: int) -> list[int]:
    """A process and its descendants."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = [first]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def processor_seconds(process: int) -> float | None:
    """Processor time of a process; None if it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def proportional_memory(process: int) -> int:
    """Proportional set size of a process in bytes."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def summary(samples: list[Sample], count: int) -> dict[str, Any]:
    """Rate, start time, processors and peak memory of a run."""
    first = next(s for s in samples if s.images >= max(1, count // 10))
    last = next(s for s in samples if s.images >= count)
    seconds = last.seconds - first.seconds
    rate = (last.images - first.images) / seconds
    return {
        "pictures_per_second": round(rate, 3),
        "start_seconds": round(first.seconds - first.images / rate, 2),
        "processors_used": round((last.processor - first.processor) / seconds, 2),
        "peak_memory_mib": {
            f"until picture {mark}": round(max(s.memory for s in samples if s.images <= mark) / 2**20)
            for mark in sorted({min(200, count // 2), count})
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of images")
    parser.add_argument("--limit", type=int, default=2000, help="number of images for cliper batch")
    parser.add_argument("--loops", type=int, default=500, help="number of images for the plain loops")
    parser.add_argument("--size", type=int, default=224, help="the setting size: small, so that the other steps count")
    parser.add_argument("--ways", default="loop,loop with files,local,ray", help="comma-separated ways")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the report")
    arguments = parser.parse_args()
    report: dict[str, Any] = {"model": "mini", "classes": CLASSES, "size": arguments.size, "ways": {}}
    for way in arguments.ways.split(","):
        with tempfile.TemporaryDirectory() as temporary:
            folder, out = Path(temporary) / "images", Path(temporary) / "out"
            folder.mkdir()
            out.mkdir()
            count = min(arguments.limit, arguments.loops) if way.startswith("loop") else arguments.limit
            link_images(arguments.images, folder, count)
            command, log = ways(folder, out, arguments.size)[way]
            report["ways"][way] = {"pictures": count, **summary(watch(command, log), count)}
        print(way, report["ways"][way], flush=True)
    print(write_report("batch_throughput", report, arguments.out))


if __name__ == "__main__":
    main()
