"""Images per second of ``cliper evaluate`` and of a plain loop, and how long the model waits for images.

    python benchmarks/evaluation_throughput.py --data ROOT [--limit 60] [--rounds 3]

ROOT holds VOCdevkit. The plain loop reads an image, segments it, counts it, and reads the next. Ways are run in turn,
and compared round by round; workers' time includes starting them and loading the model in each.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cliper import Segmenter
from cliper.datasets import find_benchmark
from cliper.evaluation import ConfusionMatrix
from cliper.evaluation.job import Job, Variant
from cliper.evaluation.runner import evaluate_samples
from cliper.evaluation.workers import evaluate
from machine import RESULTS, write_report

BENCHMARK = "voc21"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds VOCdevkit")
    parser.add_argument("--limit", type=int, default=60, help="only the first images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the report")
    options = parser.parse_args()
    segmenter = Segmenter.from_pretrained()
    benchmark = find_benchmark(BENCHMARK)
    job = Job(BENCHMARK, options.data, "mini", (Variant("", segmenter.settings),), limit=options.limit)
    samples = job.samples(benchmark)
    idle: dict[str, list[float]] = {}

    def plain() -> int:
        matrix = ConfusionMatrix(benchmark.num_labels, benchmark.ignore)
        for sample in samples:
            image, labels = benchmark.read(sample)
            result = segmenter(image, list(benchmark.texts.classes), list(benchmark.texts.background))
            matrix.update(labels, result.labels)
        return int(matrix.matrix.diagonal().sum())

    def ahead() -> int:
        hits: list[int] = []
        timing = evaluate_samples(benchmark, samples, {"": segmenter}, lambda r: hits.append(right(r.counts[""])))
        idle.setdefault("reading ahead", []).append(timing.idle_share)
        return sum(hits)

    def workers() -> int:
        hits: list[int] = []
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            outcome = evaluate(job, samples, place, {}, workers=2, seen=lambda r: hits.append(right(r.counts[""])))
        idle.setdefault("2 workers", []).append(outcome.timing.idle_share)
        return sum(hits)

    ways: dict[str, Callable[[], int]] = {"plain loop": plain, "reading ahead": ahead, "2 workers": workers}
    segmenter(benchmark.read(samples[0])[0], list(benchmark.texts.classes), list(benchmark.texts.background))
    rates: dict[str, list[float]] = {name: [] for name in ways}
    found = set()
    for _ in range(options.rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            found.add(way())
            rates[name].append(len(samples) / (time.perf_counter() - started))
    ratios = {
        name: statistics.median(a / b for a, b in zip(rates[name], rates["plain loop"], strict=True)) for name in ways
    }
    report: dict[str, Any] = {
        "what": __doc__,
        "pictures": len(samples),
        "threads": torch.get_num_threads(),
        "pictures_per_second": {name: [round(rate, 3) for rate in values] for name, values in rates.items()},
        "ratio_to_plain_loop": {name: round(ratio, 3) for name, ratio in ratios.items()},
        "model_idle_share": {name: round(statistics.median(values), 4) for name, values in idle.items()},
        "same_counts": len(found) == 1,
    }
    for name in ways:
        print(
            f"{name:16}{statistics.median(rates[name]):8.2f} images per second, {ratios[name]:.2f} times the plain loop"
        )
    print(f"share of time that the model waited: {report['model_idle_share']}; same counts: {report['same_counts']}")
    print(f"wrote {write_report('evaluation_throughput', report, options.out)}")


def right(counts: list[int]) -> int:
    """Pixels that are right, of a matrix given as row, column, count in turn."""
    return sum(counts[i + 2] for i in range(0, len(counts), 3) if counts[i] == counts[i + 1])


if __name__ == "__main__":
    main()
