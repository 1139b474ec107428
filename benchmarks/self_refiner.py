"""mIoU on PASCAL VOC with ``refiner="self"`` and without, on the bundled checkpoint; settings chosen on other images.

    python benchmarks/self_refiner.py --data VOCdevkit

Every second image of the list is used to choose layer, side, mean weight and inverse temperature (by the sum of both
benchmarks' mIoU); the others are what is reported. The bundled checkpoint was trained with masks of VOC: these numbers
say nothing about the published ones, and what is best for its layers need not be for another CLIP's.
"""

from __future__ import annotations

import argparse
import time
from itertools import product
from pathlib import Path

import torch

from cliper import Segmenter
from cliper.evaluation import ConfusionMatrix, benchmark_texts
from cliper.images import to_tensor
from cliper.ops import assign_labels
from cliper.refiners.affinity import propagate
from cliper.refiners.self_similarity import (
    DEPTH,
    INVERSE_TEMPERATURE,
    MAX_LEVEL,
    MEAN_WEIGHT,
    SIDE,
    SelfSimilarityRefiner,
)
from machine import RESULTS, write_report
from voc import voc_images, voc_names

# layer (of 12), short side, mean weight, inverse temperature
CANDIDATES = [
    (layer, side, *pair) for layer, side, pair in product((6, 8, 9, 11), (336, 504), ((1.2, 8.0), (1.6, 3.0)))
]
Candidate = tuple[int, int, float, float]


class Runner:
    """Measures candidates, each image's class maps and features computed once."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.segmenter = Segmenter.from_pretrained()
        texts = benchmark_texts("voc")
        self.foreground = self.segmenter.encode_text(texts.classes)
        self.background = self.segmenter.encode_text(texts.background)

    @torch.inference_mode()
    def measure(self, names: list[str], candidates: list[Candidate]) -> dict[Candidate | None, dict[str, float]]:
        """mIoU by candidate; None is without a refiner."""
        everything: list[Candidate | None] = [None, *candidates]
        matrices = {c: {"voc21": ConfusionMatrix(21), "voc20": ConfusionMatrix(21, (0, 255))} for c in everything}
        encoder, settings = self.segmenter.encoder, self.segmenter.settings
        patch = encoder.patch_size
        for image, target in voc_images(self.data, names):
            pixels = self.segmenter.preprocess(image)
            maps = self.segmenter.class_maps(pixels, self.foreground, self.background)
            unit = to_tensor(image)
            features: dict[tuple[int, int], torch.Tensor] = {}
            for candidate in everything:
                refined = maps
                if candidate is not None:
                    layer, side, mean_weight, inverse_temperature = candidate
                    grid = tuple(max(1, round(s * side / min(image.size) / patch)) for s in unit.shape[1:])
                    if (layer, side) not in features:
                        size = (grid[0] * patch, grid[1] * patch)
                        features[layer, side] = SelfSimilarityRefiner(encoder, layer=layer).features(unit, size)
                    refined = propagate(
                        maps,
                        features[layer, side],
                        grid,
                        mean_weight=mean_weight,
                        inverse_temperature=inverse_temperature,
                        max_level=MAX_LEVEL,
                    )
                size = (target.shape[0], target.shape[1])
                for benchmark, (background, score) in {
                    "voc21": (settings.background_threshold, settings.score_threshold),
                    "voc20": (1e-4, 0.0),
                }.items():
                    labels = assign_labels(
                        refined,
                        maps,
                        size,
                        background_threshold=background,
                        score_threshold=score,
                        normalize=settings.normalize,
                    )
                    matrices[candidate][benchmark].update(target, labels)
        return {c: {b: round(m.miou, 4) for b, m in both.items()} for c, both in matrices.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder VOCdevkit")
    parser.add_argument("--limit", type=int, default=None, help="only the first images")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the report")
    options = parser.parse_args()
    names = voc_names(options.data)[: options.limit]
    runner = Runner(options.data)
    started = time.perf_counter()
    chosen_on = runner.measure(names[::2], CANDIDATES)
    best = max(CANDIDATES, key=lambda c: chosen_on[c]["voc21"] + chosen_on[c]["voc20"])
    shipped = (round(DEPTH * runner.segmenter.encoder.num_layers), SIDE, MEAN_WEIGHT, INVERSE_TEMPERATURE)
    reported = runner.measure(names[1::2], list(dict.fromkeys([best, shipped])))
    report = {
        "what": __doc__,
        "model": "mini",
        "settings": runner.segmenter.settings.to_dict(),
        "columns": ["layer", "side", "mean_weight", "inverse_temperature"],
        "chosen_on": {
            "images": len(names[::2]),
            "without": chosen_on[None],
            "candidates": [{"candidate": c, **chosen_on[c]} for c in CANDIDATES],
        },
        "best": best,
        "shipped": shipped,
        "reported_on": {
            "images": len(names[1::2]),
            "without": reported[None],
            "best": reported[best],
            "shipped": reported[shipped],
        },
        "seconds": round(time.perf_counter() - started, 1),
    }
    path = write_report("self_refiner", report, options.out)
    print(f"best of {len(CANDIDATES)} on {len(names[::2])} pictures: {best}, shipped: {shipped}")
    for name, values in report["reported_on"].items():
        print(name, values)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
