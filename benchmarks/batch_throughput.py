"""Images per second of ``cliper batch`` beside a plain loop over ``segmenter(...)``; processors and memory used.

    python benchmarks/batch_throughput.py VOCdevkit/VOC2012/JPEGImages --limit 300 --before ../old/src
    python benchmarks/batch_throughput.py VOCdevkit/VOC2012/JPEGImages               # 2,000 images, some 20 minutes

The given images are repeated under other names, by links, until there are enough: 2,000 for batch, 500 for the plain
loops, whose rate does not change. All ways use the bundled checkpoint unless ``--model`` names another
(``--before-model`` for the other version, whose settings file may differ). They run one after the other, each in a
process of its own, ``--rounds`` times in turns; the rate is the median of the rounds:

- loop: ``segmenter(path, classes)``, and nothing is written
- loop with files: the same, and label map and overlay are saved, as batch does
- local, ray: ``cliper batch``, label map and overlay in the default formats
- threads: as local, but images are decoded by threads, not by limited processes
- before: ``cliper batch`` of another version of the package (``--before``) in its default formats

A rate is that from the first tenth of the images on, without loading; start is the time until then less what those
images take. Memory is that of all processes of a run, memory that they share counted once. ``same_labels`` is the share
of label maps of local whose pixels are those of before, ``same_pixels`` the share of pixels.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from machine import RESULTS, write_report

CLASSES = "person; dog; cat; car; bird; horse; sheep; boat; bus; train"

LOOP = """
import sys
from pathlib import Path
import cliper
folder, out, log, write = Path(sys.argv[1]), Path(sys.argv[2]), open(sys.argv[3], "a"), sys.argv[4] == "files"
segmenter = cliper.Segmenter.from_pretrained(sys.argv[7])
segmenter = segmenter.with_settings(segmenter.settings.replace(size=int(sys.argv[6])))
for path in sorted(folder.iterdir()):
    result = segmenter(path, sys.argv[5])
    if write:
        result.save(out / f"{path.stem}.labels.png")
        result.save_overlay(out / f"{path.stem}.overlay.png")
    print(path.name, file=log, flush=True)
"""

# Decodes in this process, as `segment` does.
THREADS = """
import io
import numpy as np
import cliper.runner.engines.threads as engine
from cliper.cli.main import main
from cliper.images import load_image, load_stream
class InProcess:
    def __init__(self, workers, handler): pass
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def decode(self, source, name=""):
        return np.asarray(load_stream(io.BytesIO(source), name) if isinstance(source, bytes) else load_image(source))
engine.DecodePool = InProcess
main()
"""


@dataclass(frozen=True)
class Sample:
    """A run at one moment.

    Args:
        seconds: since it began.
        images: that are done.
        processor: seconds that all processors together have spent on it.
        memory: bytes.
    """

    seconds: float
    images: int
    processor: float
    memory: int


def ways(folder: Path, out: Path, size: int, model: str) -> dict[str, tuple[list[str], Path]]:
    """Command of each way, and the file that gets a line for each image."""
    log = out / "log"
    loop = [sys.executable, "-c", LOOP, str(folder), str(out), str(log)]
    flags = ["batch", str(folder), "-c", CLASSES, "--size", str(size), "--model", model, "-o", str(out / "run")]
    batch = [sys.executable, "-m", "cliper", *flags]
    manifest = out / "run" / "manifest.jsonl"
    return {
        "loop": ([*loop, "nothing", CLASSES, str(size), model], log),
        "loop with files": ([*loop, "files", CLASSES, str(size), model], log),
        "local": (batch, manifest),
        "ray": ([*batch, "--engine", "ray"], manifest),
        "threads": ([sys.executable, "-c", THREADS, *flags], manifest),
        "before": (batch, manifest),
    }


def link_images(source: Path, folder: Path, count: int) -> None:
    """``count`` images, those of ``source`` again and again."""
    images = sorted(path for path in source.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not images:
        raise SystemExit(f"expected images in {source}, got none")
    for number, path in enumerate(itertools.islice(itertools.cycle(images), count)):
        (folder / f"{number:06d}{path.suffix}").symlink_to(path.resolve())


def watch(command: list[str], log: Path, source: Path | None) -> list[Sample]:
    """Run a command, with the package of another source folder if one is given, and look at it every second."""
    began = time.perf_counter()
    environment = os.environ | ({} if source is None else {"PYTHONPATH": str(source.resolve())})
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    samples: list[Sample] = []
    spent: dict[int, float] = {}
    place, lines = 0, 0
    while True:
        running = process.poll() is None
        if log.exists():
            with log.open("rb") as stream:
                stream.seek(place)
                new = stream.read()
            place += len(new)
            lines += new.count(b"\n")
        if running:
            tree = processes(process.pid)
            spent.update({one: seconds for one in tree if (seconds := processor_seconds(one)) is not None})
            memory = sum(proportional_memory(one) for one in tree)
            samples.append(Sample(time.perf_counter() - began, lines, sum(spent.values()), memory))
        else:
            if process.returncode:
                raise SystemExit(f"{' '.join(command[:5])} ... ended with exit code {process.returncode}")
            return [*samples, replace(samples[-1], seconds=time.perf_counter() - began, images=lines)]
        time.sleep(1)  # reading the memory of many processes takes time of its own


def processes(first: int) -> list[int]:
    """A process and all below it."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = [first]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def processor_seconds(process: int) -> float | None:
    """That a process has spent; None if it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def proportional_memory(process: int) -> int:
    """Bytes of a process, its part of what it shares with others."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def summary(samples: list[Sample], count: int) -> dict[str, Any]:
    """What a run's samples say."""
    first = next(s for s in samples if s.images >= max(1, count // 10))
    last = next(s for s in samples if s.images >= count)
    seconds, images = last.seconds - first.seconds, last.images - first.images
    rate = images / seconds
    return {
        "images_per_second": round(rate, 3),
        "start_seconds": round(first.seconds - first.images / rate, 2),
        "processors_used": round((last.processor - first.processor) / seconds, 2),
        "peak_memory_mib": {
            f"until image {mark}": round(max(s.memory for s in samples if s.images <= mark) / 2**20)
            for mark in sorted({min(200, count // 2), count})
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of images")
    parser.add_argument("--limit", type=int, default=2000, help="how many images for cliper batch")
    parser.add_argument("--loops", type=int, default=500, help="how many images for the plain loops")
    parser.add_argument("--size", type=int, default=224, help="the setting size: a small one, so that the rest counts")
    parser.add_argument("--ways", default="loop,loop with files,local,threads,ray", help="which, with commas")
    parser.add_argument("--model", default="mini", help="of all ways")
    parser.add_argument("--rounds", type=int, default=1, help="how often each way runs")
    parser.add_argument("--before", type=Path, help="source folder of another version of the package")
    parser.add_argument("--before-model", help="the checkpoint of that version; default: that of --model")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the report")
    arguments = parser.parse_args()
    report: dict[str, Any] = {"model": arguments.model, "classes": CLASSES, "size": arguments.size, "ways": {}}
    labels: dict[str, dict[str, np.ndarray]] = {}
    rounds: dict[str, list[dict[str, Any]]] = {}
    chosen = [*(["before"] if arguments.before else []), *arguments.ways.split(",")]
    for turn, way in itertools.product(range(arguments.rounds), chosen):
        with tempfile.TemporaryDirectory() as place:
            folder, out = Path(place) / "images", Path(place) / "out"
            folder.mkdir()
            out.mkdir()
            count = min(arguments.limit, arguments.loops) if way.startswith("loop") else arguments.limit
            link_images(arguments.images, folder, count)
            model = arguments.before_model or arguments.model if way == "before" else arguments.model
            command, log = ways(folder, out, arguments.size, model)[way]
            source = arguments.before if way == "before" else None
            rounds.setdefault(way, []).append({"images": count, **summary(watch(command, log, source), count)})
            labels[way] = {path.name: np.array(Image.open(path)) for path in (out / "run").glob("*.labels.png")}
        print(turn, way, rounds[way][-1], flush=True)
    for way, results in rounds.items():
        rates = [result["images_per_second"] for result in results]
        report["ways"][way] = results[-1] | {"images_per_second": statistics.median(rates), "rounds": rates}
    if {"before", "local"} <= set(labels):
        equal = [data == labels["before"][name] for name, data in labels["local"].items()]
        report["same_labels"] = sum(bool(same.all()) for same in equal) / len(equal)
        report["same_pixels"] = float(sum(same.sum() for same in equal) / sum(same.size for same in equal))
        print("same labels", report["same_labels"], "same pixels", report["same_pixels"])
    print(write_report("batch_throughput", report, arguments.out))


if __name__ == "__main__":
    main()
