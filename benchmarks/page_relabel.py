"""Milliseconds that a moved threshold takes on the server of ``cliper demo``: labels again from kept maps.

    python benchmarks/page_relabel.py                # a few seconds
    python benchmarks/page_relabel.py --threads 1

The bundled photo at 640x480 pixels, the 20 classes of VOC, the bundled checkpoint, once without a refiner and once
with ``self``. The class threshold is 0, so that all classes are on, which takes longest; the background threshold is
another each time. "relabel" is ``Segmentation.relabel``; "answer" is all that the page does between a request and its
answer: with a refiner that is two label maps, after fusion and after refinement, and their PNGs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

import cliper
from cliper.web.page.actions import Actions
from cliper.web.page.kept import Kept
from cliper.web.page.limits import Limits
from cliper.web.page.models import Models
from machine import write_report

SIZE = (640, 480)
CLASSES = (
    "aeroplane; bicycle; bird; boat; bottle; bus; car; cat; chair; cow; dining table; dog; horse; motorbike; person; "
    "potted plant; sheep; sofa; train; tv monitor"
)
TIMES = 50


def measured(work: Callable[[float], object]) -> dict[str, float]:
    """Milliseconds of ``work`` at so many background thresholds: median, 95th percentile and the longest."""
    work(0.5)
    taken = []
    for index in range(TIMES):
        started = time.perf_counter()
        work((index + 1) / (TIMES + 1))
        taken.append(1000 * (time.perf_counter() - started))
    return {
        "median": round(statistics.median(taken), 1),
        "p95": round(statistics.quantiles(taken, n=20)[-1], 1),
        "longest": round(max(taken), 1),
    }


def main() -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch")
    parser.add_argument("--out", type=Path, default=None, help="folder of the report; by default benchmarks/results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    plain = cliper.Segmenter.from_pretrained("mini", device="cpu")
    image = Image.open(cliper.example_photo()).resize(SIZE)
    report = {"picture": list(SIZE), "classes": 20, "threads": options.threads, "times": TIMES, "milliseconds": {}}
    with tempfile.TemporaryDirectory() as folder:
        limits = Limits()
        kept = Kept(Path(folder), limits)
        actions = Actions(Models(plain, lambda name: plain), kept, limits, Path(folder))
        for name, segmenter in (("no refiner", plain), ("self", plain.with_refiner("self"))):
            result = segmenter(image, CLASSES)
            token = kept.put(result)
            report["milliseconds"][name] = {
                "maps": list(result.refined.shape),
                "relabel": measured(
                    lambda at, result=result: result.relabel(score_threshold=0.0, background_threshold=at)
                ),
                "answer": measured(lambda at, token=token: actions.move(token, 0.0, at)),
            }
    for name, row in report["milliseconds"].items():
        print(f"{name}: relabel {row['relabel']}, answer {row['answer']}")
    print(write_report("page_relabel", report, options.out))


if __name__ == "__main__":
    main()
