"""The second question about an image, with new words, against the first: ``Segmenter.encode_image`` runs once.

    python benchmarks/encode_once.py                     # some minutes; a pipeline of 5 GB in a temporary folder
    python benchmarks/encode_once.py --quick             # a tiny pipeline, two rounds

For the refiner ``self`` and for a refiner with Stable Diffusion 2.1's shapes and random weights, each on the bundled
checkpoint. A round asks for an image by words that no round had (first), and then for the encoded image by other new
words (second). Goals: the second is 10 times as fast with ``self``, and 12 times with the diffusion refiner.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

import cliper
from machine import RESULTS, write_report
from random_pipeline import build

WIDTH, HEIGHT, CLASSES = 640, 480, 3
GOALS = {"self": 10.0, "diffusion": 12.0}


def measure(segmenter: cliper.Segmenter, rounds: int) -> dict[str, Any]:
    """Seconds of first and second questions; the first round is not counted."""
    image = Image.open(cliper.example_photo()).convert("RGB").resize((WIDTH, HEIGHT))
    numbers = itertools.count()
    first: list[float] = []
    second: list[float] = []
    for _ in range(rounds + 1):
        words = [[f"{letter} number {next(numbers)}" for letter in "abc"[:CLASSES]] for _ in range(2)]
        started = time.perf_counter()
        encoded = segmenter.encode_image(image)
        segmenter(encoded, words[0])
        between = time.perf_counter()
        segmenter(encoded, words[1])
        first.append(between - started)
        second.append(time.perf_counter() - between)
    before, after = statistics.median(first[1:]), statistics.median(second[1:])
    return {
        "first_seconds": round(before, 4),
        "second_seconds": round(after, 4),
        "ratio": round(before / after, 2),
        "encoded_mib": round(encoded.nbytes / 2**20, 2),
        "all_first": [round(value, 4) for value in first[1:]],
        "all_second": [round(value, 4) for value in second[1:]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="a tiny pipeline, two rounds")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the report")
    given = parser.parse_args()
    rounds = 2 if given.quick else given.rounds
    plain = cliper.Segmenter.from_pretrained("mini", device="cpu")
    rows = {"self": {**measure(plain.with_refiner("self"), rounds), "goal": GOALS["self"]}}
    print("self", json.dumps(rows["self"]), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "pipeline"
        folder.mkdir()
        build(folder, "sd2.1", given.quick)
        segmenter = plain.with_refiner(folder)
        rows["diffusion"] = {
            **measure(segmenter, 2 if given.quick else max(2, rounds // 2)),
            "goal": GOALS["diffusion"],
        }
        print("diffusion", json.dumps(rows["diffusion"]), flush=True)
    report = {
        "model": "mini",
        "image": [WIDTH, HEIGHT],
        "classes": CLASSES,
        "background": "auto",
        "settings": plain.settings.to_dict(),
        "quick": given.quick,
        "refiners": rows,
    }
    print(write_report("encode_once", report, given.out))


if __name__ == "__main__":
    main()
